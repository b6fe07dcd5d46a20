"""
What a reading has to be, as its sender gives it.

The structs are the items of the API. A decoder makes them where every field has its type;
``smartgrid_domain.reading_values`` makes them of anything else and says everything that is wrong. Rules beyond types
are in :func:`sensor_findings` and :func:`meter_findings`, once for both ways.
"""

import re
from math import isfinite
from typing import Final
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType

from smartgrid_domain.errors import Finding
from smartgrid_domain.instants import BadInstant, instant
from smartgrid_domain.maths.quantities import MEASURANDS, METER_HIGH, METER_UNITS, QUALITIES
from smartgrid_domain.strict_json import escaped, shown
from smartgrid_schemas.telemetry import Scalar

ID_CHARS: Final = 128
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z", re.ASCII)
_ID_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*\Z", re.ASCII)
UUID_FORM = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z", re.ASCII)
PHASES: Final = ("L1", "L2", "L3", "N", "L12", "L23", "L31", "total")
SENT_QUALITIES: Final = ("measured", "estimated", "substituted", "suspect")
DEFAULT_REGISTER: Final = "1.8.0"
DEFAULT_METER_UNIT: Final = next(iter(METER_UNITS))
REGISTER_CHARS: Final = 32
REASON_CHARS: Final = 500
METADATA_KEYS: Final = 16
METADATA_BYTES: Final = 2048
HIGHEST_SEQ: Final = 2**53 - 1
AHEAD_US: Final = 5 * 60 * 1_000_000
"""How far ahead of us a sender's clock may be [µs]."""

Maybe = UnsetType
Metadata = dict[str, Scalar]
_WORD = 2**63
_ENCODE = msgspec.json.Encoder().encode


class Place(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A place on the WGS 84 ellipsoid [°]."""

    lat: float
    lon: float


class SensorReading(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """An item of a sensor, every field with its type; null is as good as absent where a field may be absent."""

    sensor_id: str
    sensor_type: str
    value: float
    location: Place | Maybe | None = UNSET
    timestamp: str | Maybe | None = UNSET
    unit: str | Maybe | None = UNSET
    phase: str | Maybe | None = UNSET
    quality: str | Maybe | None = UNSET
    seq: int | Maybe | None = UNSET
    metadata: Metadata | Maybe | None = UNSET
    corrects: str | Maybe | None = UNSET
    reason: str | Maybe | None = UNSET


class MeterReading(Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """An item of a meter, every field with its type; null is as good as absent where a field may be absent."""

    meter_id: str
    reading: float
    customer_id: str | Maybe | None = UNSET
    timestamp: str | Maybe | None = UNSET
    unit: str | Maybe | None = UNSET
    register: str | Maybe | None = UNSET
    quality: str | Maybe | None = UNSET
    seq: int | Maybe | None = UNSET
    metadata: Metadata | Maybe | None = UNSET
    corrects: str | Maybe | None = UNSET
    reason: str | Maybe | None = UNSET


Item = SensorReading | MeterReading


def sensor_findings(item: SensorReading, latest_us: int) -> list[Finding]:
    """
    Return what is wrong with *item*, none for a good one; a field that is :data:`msgspec.UNSET` is not looked at.

    Args:
        item: As decoded.
        latest_us: The latest time that is not ahead of ours [µs since 1970].
    """
    found: list[Finding] = []
    _check_id(item.sensor_id, "/sensor_id", found)
    measurand = MEASURANDS.get(item.sensor_type)
    if measurand is None and _given(item.sensor_type):
        found.append(Finding("/sensor_type", "unknown_value", f"sensor_type is one of {', '.join(MEASURANDS)}"))
    shift = 0
    if item.unit and measurand is not None:
        if item.unit in measurand.units:
            shift = measurand.units[item.unit]
        else:
            units = ", ".join(measurand.units)
            found.append(Finding("/unit", "unit_mismatch", f"{measurand.name} is measured in {units}"))
            measurand = None
    elif item.unit == "":
        found.append(Finding("/unit", "unit_mismatch", "Leave unit out for the canonical one"))
    if _given(item.value):
        if not isfinite(item.value):
            found.append(Finding("/value", "not_finite", "Send a finite number"))
        elif measurand is not None and not in_physical_range(item.value, measurand.low, measurand.high, shift):
            span = f"{measurand.low:,} … {measurand.high:,} {measurand.unit}"
            found.append(Finding("/value", "out_of_physical_range", f"{measurand.name} lies in {span}"))
    if item.location:
        _check_place(item.location, found)
    if item.phase is not None and item.phase is not UNSET and item.phase not in PHASES:
        found.append(Finding("/phase", "unknown_value", f"phase is one of {', '.join(PHASES)}"))
    _check_common(item, latest_us, found)
    return found


def meter_findings(item: MeterReading, latest_us: int) -> list[Finding]:
    """Return what is wrong with *item*, as :func:`sensor_findings`."""
    found: list[Finding] = []
    _check_id(item.meter_id, "/meter_id", found)
    if item.customer_id is not None:
        _check_id(item.customer_id, "/customer_id", found)
    if item.unit is not None and item.unit is not UNSET and item.unit not in METER_UNITS:
        found.append(Finding("/unit", "unit_mismatch", f"A register counts in {', '.join(METER_UNITS)}"))
    if _given(item.reading):
        if not isfinite(item.reading):
            found.append(Finding("/reading", "not_finite", "Send a finite number"))
        elif not 0 <= item.reading <= METER_HIGH:
            found.append(Finding("/reading", "out_of_range", "A register stands at 0 … 1e12"))
    if item.register is not None and item.register is not UNSET:
        if len(item.register) > REGISTER_CHARS:
            found.append(Finding("/register", "too_long", f"register has at most {REGISTER_CHARS} characters"))
        elif not item.register or not item.register.isprintable():
            found.append(Finding("/register", "bad_format", "register is 1 … 32 printable characters, such as 1.8.0"))
    _check_common(item, latest_us, found)
    return found


def in_physical_range(value: float, low: int, high: int, shift: int) -> bool:
    """Return whether *value*, in a unit of ``10**shift`` canonical ones, lies in *low* … *high*, exactly."""
    # Every bound of the table is a float64 in each unit, so comparing floats is exact.
    scale: int = 10 ** abs(shift)
    return low / scale <= value <= high / scale if shift >= 0 else low * scale <= value <= high * scale


def _check_id(text: str | Maybe, pointer: str, found: list[Finding]) -> None:
    if text is UNSET or ID.match(text):
        return
    if len(text) > ID_CHARS and _ID_FORM.match(text):
        found.append(Finding(pointer, "too_long", f"An id has at most {ID_CHARS} characters"))
    else:
        message = "An id starts with a letter or digit and holds letters, digits and . _ : -"
        found.append(Finding(pointer, "bad_format", message))


def _check_place(place: Place, found: list[Finding]) -> None:
    for name, degrees, most in (("lat", place.lat, 90), ("lon", place.lon, 180)):
        if not _given(degrees):
            continue
        if not isfinite(degrees):
            found.append(Finding(f"/location/{name}", "not_finite", "Send a finite number"))
        elif abs(degrees) > most:
            found.append(Finding(f"/location/{name}", "out_of_range", f"{name} lies in -{most} … {most}"))


def _check_common(item: Item, latest_us: int, found: list[Finding]) -> None:
    if item.timestamp is not None and item.timestamp is not UNSET:
        try:
            time_of(item.timestamp, latest_us)
        except BadInstant as error:
            found.append(Finding("/timestamp", error.code, str(error)))
    if item.seq is not None and item.seq is not UNSET and not 0 <= item.seq <= HIGHEST_SEQ:
        found.append(Finding("/seq", "out_of_range", "seq lies in 0 … 2^53 - 1"))
    if item.metadata:
        _check_metadata(item.metadata, found)
    _check_correction(item, found)


def _check_correction(item: Item, found: list[Finding]) -> None:
    corrects, reason, quality = _sent(item.corrects), _sent(item.reason), _sent(item.quality)
    if quality is not None and corrects is not None:
        found.append(Finding("/quality", "unknown_field", "A correction has the quality corrected; leave it out"))
    elif quality is not None and quality not in SENT_QUALITIES:
        found.append(Finding("/quality", "unknown_value", f"quality is one of {', '.join(SENT_QUALITIES)}"))
    if corrects is not None and not UUID_FORM.match(corrects):
        found.append(Finding("/corrects", "bad_format", "corrects is the event_id of the reading replaced"))
    if corrects is not None and reason is None:
        found.append(Finding("/reason", "missing_field", "Missing required field: reason"))
    if reason is not None and corrects is None:
        found.append(Finding("/corrects", "missing_field", "Missing required field: corrects"))
    if reason is not None:
        _check_reason(reason, found)


def _sent(text: str | Maybe | None) -> str | None:
    return None if text is UNSET else text


def _given(value: object) -> bool:
    return value is not UNSET


def _check_reason(reason: str, found: list[Finding]) -> None:
    if len(reason) > REASON_CHARS:
        found.append(Finding("/reason", "too_long", f"reason has at most {REASON_CHARS} characters"))
    elif not reason.strip():
        found.append(Finding("/reason", "missing_field", "Say why in reason"))
    elif _unclean(reason):
        found.append(Finding("/reason", "bad_format", "Text must not hold NUL"))


def _unclean(text: str) -> bool:
    if text.isprintable():
        return False
    return "\0" in text or any("\ud800" <= char <= "\udfff" for char in text)


def _check_metadata(metadata: Metadata, found: list[Finding]) -> None:
    if len(metadata) > METADATA_KEYS:
        found.append(Finding("/metadata", "too_long", f"metadata has at most {METADATA_KEYS} keys"))
        return
    before = len(found)
    for key, value in metadata.items():
        pointer = f"/metadata/{escaped(shown(key))}"
        if _unclean(key) or (isinstance(value, str) and _unclean(value)):
            found.append(Finding(pointer, "bad_format", "Text must not hold NUL"))
        elif isinstance(value, float) and not isfinite(value):
            found.append(Finding(pointer, "not_finite", "Send a finite number"))
        elif isinstance(value, int) and not -_WORD <= value < _WORD:
            found.append(Finding(pointer, "out_of_range", "An integer has at most 64 bits"))
    if len(found) == before and len(_ENCODE(metadata)) > METADATA_BYTES:
        found.append(Finding("/metadata", "too_long", f"metadata has at most {METADATA_BYTES} bytes as JSON"))


def time_of(text: str, latest_us: int) -> int:
    """
    Return the time that *text* tells [µs since 1970].

    Raises:
        BadInstant: Its form, its range, or later than *latest_us*.
    """
    moment = instant(text)
    micros = int(moment.timestamp()) * 1_000_000 + moment.microsecond
    if micros > latest_us:
        raise BadInstant("timestamp_in_future", "The time is more than 5 minutes ahead")
    return micros


def correction_of(item: Item) -> tuple[bytes, str] | None:
    """Return the id that *item* replaces (16 bytes) and why; None for a plain reading. The item has no findings."""
    if not item.corrects or not item.reason:
        return None
    return UUID(item.corrects).bytes, item.reason


def quality_of(item: Item) -> int:
    """Return the code of the quality of a good *item*: corrected, as sent, or measured."""
    if item.corrects:
        return QUALITIES["corrected"]
    return QUALITIES[item.quality] if item.quality else 0
