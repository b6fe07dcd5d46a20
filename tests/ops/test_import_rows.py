import gzip
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartgrid_ops.importing.files import BadFile, Source
from smartgrid_ops.importing.items import Reading, Skipped
from smartgrid_ops.importing.mapping import BadMapping, Mapping, TimeMapping, load_mapping
from smartgrid_ops.importing.numbers import NotANumber, RunningTotal, number_text
from smartgrid_ops.importing.reading import readings
from smartgrid_ops.importing.times import BadTime, TimeReader

MAPPINGS = Path(__file__).parents[2] / "ops" / "mappings"
HOUSEHOLD = load_mapping(MAPPINGS / "household.toml")
STEEL = load_mapping(MAPPINGS / "steel.toml")

decimals = st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)


def file_of(folder: Path, text: str | bytes, name: str = "rows.csv") -> Source:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Source(path)


def mapped(text: str) -> Mapping:
    return msgspec.toml.decode(text, type=Mapping)


def found(source: Source, mapping: Mapping) -> list[tuple[str, str]]:
    return [(r.at.text, r.number) for r in readings(source, mapping) if isinstance(r, Reading)]


@given(decimals, st.sampled_from(["", "+"]), st.integers(0, 3))
def test_a_number_keeps_its_value_whatever_its_dress(value: Decimal, sign: str, zeros: int) -> None:
    dressed = f"{value}" if value.is_signed() else f"{sign}{'0' * zeros}{value}"

    text = number_text(f" {dressed} ")

    assert Decimal(msgspec.json.decode(text, type=Decimal)) == value
    assert Decimal(text).as_tuple() == value.as_tuple()


@pytest.mark.parametrize("text", ["234.840", "4", "-0", "1e-9", "0.000", "1E5"])
def test_a_json_number_stays_as_it_is(text: str) -> None:
    assert number_text(text) == text


@pytest.mark.parametrize("text", ["", ".", "1.2.3", "0x10", "NaN", "inf", "1_000", "1,5", "٣", "1e", "9" * 65, "1\n2"])
def test_what_is_no_number_is_said_to_be_none(text: str) -> None:
    with pytest.raises(NotANumber):
        number_text(text)


@given(st.lists(st.decimals(min_value=0, max_value=10**4, places=2), max_size=60))
def test_a_running_total_is_the_exact_sum(amounts: list[Decimal]) -> None:
    total = RunningTotal(Decimal(0))

    texts = [total.add(str(amount)) for amount in amounts]

    assert [Decimal(text) for text in texts] == [sum(amounts[: i + 1], Decimal(0)) for i in range(len(amounts))]


@given(st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)), st.sampled_from(["Europe/Tirane", "Asia/Seoul"]))  # noqa: DTZ001  # local times are the point
def test_a_local_time_is_read_as_zoneinfo_says(local: datetime, zone: str) -> None:
    reader = TimeReader(TimeMapping(columns=["t"]), ZoneInfo(zone))
    utc = local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    exists = utc.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local

    if exists:
        assert datetime.fromisoformat(reader.read([local.isoformat()]).text) == utc
    else:
        with pytest.raises(BadTime):
            reader.read([local.isoformat()])


def test_the_repeated_hour_is_told_apart_by_order() -> None:
    reader = TimeReader(TimeMapping(columns=["t"]), ZoneInfo("Europe/Paris"))
    local = [f"2006-10-29 02:{minute:02}" for minute in (0, 30, 0, 30)]

    texts = [reader.read([text]).text for text in local]

    assert texts == [f"2006-10-29T{hour:02}:{minute:02}:00Z" for hour in (0, 1) for minute in (0, 30)]


@pytest.mark.parametrize(("which", "hour"), [("first", 0), ("second", 1)])
def test_the_repeated_hour_may_be_fixed(which: str, hour: int) -> None:
    mapping = msgspec.convert({"columns": ["t"], "repeated_hour": which}, TimeMapping)
    reader = TimeReader(mapping, ZoneInfo("Europe/Paris"))

    assert {reader.read(["2006-10-29 02:00"]).text for _ in range(2)} == {f"2006-10-29T0{hour}:00:00Z"}


def test_a_time_with_an_offset_needs_no_zone() -> None:
    reader = TimeReader(TimeMapping(columns=["t"], formats=["unix-ms", "iso8601"]), ZoneInfo("Asia/Seoul"))

    assert reader.read(["2026-01-15T10:30:00+01:00"]).text == "2026-01-15T09:30:00Z"
    assert reader.read(["1768469400500"]).text == "2026-01-15T09:30:00.500000Z"


def test_household_rows_become_three_readings_and_marks_none(tmp_path: Path) -> None:
    header = "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;Sub_metering_1\n"
    source = file_of(
        tmp_path, header + "16/12/2006;17:24:00;4.216;0.418;234.840;18.400;0\n21/12/2006;11:23:00;?;?;?;?;?\n"
    )

    rows = list(readings(source, HOUSEHOLD))

    first = [msgspec.json.decode(r.json()) for r in rows if isinstance(r, Reading)]
    assert [(r["sensor_type"], r["value"], r["unit"]) for r in first] == [
        ("voltage", 234.84, "V"),
        ("current", 18.4, "A"),
        ("power", 4.216, "kW"),
    ]
    assert {r["timestamp"] for r in first} == {"2006-12-16T16:24:00Z"}
    assert rows[3:] == [None, None, None]


def test_steel_midnight_ends_its_day_and_intervals_add_up_to_a_register(tmp_path: Path) -> None:
    day = ["01/01/2018 23:45,0.1", "01/01/2018 00:00,0.2", "02/01/2018 00:15,0.70"]
    source = file_of(tmp_path, gzip.compress(b"\xef\xbb\xbfdate,Usage_kWh\r\n" + "\r\n".join(day).encode()), "s.csv.gz")

    assert found(source, STEEL) == [
        ("2018-01-01T14:30:00Z", "0"),
        ("2018-01-01T14:45:00Z", "0.1"),
        ("2018-01-01T15:00:00Z", "0.3"),
        ("2018-01-01T15:15:00Z", "1.00"),
    ]


def test_energy_out_of_order_negative_or_too_long_is_refused_and_not_added(tmp_path: Path) -> None:
    day = ["02/01/2018 00:15,1", "02/01/2018 00:15,1", "02/01/2018 00:30,-1", "02/01/2018 00:45,0.000000000000001"]
    source = file_of(tmp_path, "\ufeffdate,Usage_kWh\n" + "\n".join([*day, "02/01/2018 01:00,2"]))

    rows = list(readings(source, STEEL))

    codes = [r.code for r in rows if isinstance(r, Skipped)]
    assert codes == ["out_of_order", "not_a_number", "too_many_digits"]
    assert [r.number for r in rows if isinstance(r, Reading)] == ["0", "1", "3"]


@given(st.lists(decimals, min_size=1, max_size=20))
def test_ndjson_and_csv_say_the_same(tmp_path_factory: pytest.TempPathFactory, values: list[Decimal]) -> None:
    folder = tmp_path_factory.mktemp("both")
    at = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(len(values))]
    mapping = mapped(
        '[time]\ncolumns=["t"]\n[[sensors]]\ncolumn="v"\nsensor_type="power"\nsensor_id_column="id"\nunit="kW"\n'
    )
    pairs = list(zip(at, values, strict=True))
    table = file_of(folder, "id,t,v\n" + "".join(f"a,{t.isoformat()},{v}\n" for t, v in pairs))
    objects = file_of(folder, "".join(f'{{"t":"{t.isoformat()}","v":{v},"id":"a"}}\n' for t, v in pairs), "rows.ndjson")

    assert (
        found(table, mapping)
        == found(objects, mapping)
        == [(t.isoformat().replace("+00:00", "Z"), str(v)) for t, v in pairs]
    )


def test_a_bad_row_is_told_with_its_line_and_the_others_go_on(tmp_path: Path) -> None:
    mapping = mapped(
        '[time]\ncolumns=["t"]\nzone="Europe/Paris"\n[[sensors]]\ncolumn="v"\nsensor_type="power"\nsensor_id="a"\n'
    )
    lines = [
        "2026-01-01T00:00,1",
        "yesterday,2",
        "2026-01-01T00:02,x",
        "2026-01-01T00:03",
        "2026-03-29T02:30,4",
        "",
        "2026-01-01T00:05,5",
    ]

    rows = list(readings(file_of(tmp_path, "t,v\n" + "\n".join(lines) + "\n"), mapping))

    refused = [(r.line, r.column, r.code) for r in rows if isinstance(r, Skipped)]
    assert refused == [(3, "t", "bad_time"), (4, "v", "not_a_number"), (5, "-", "bad_row"), (6, "t", "bad_time")]
    assert [r.number for r in rows if isinstance(r, Reading)] == ["1", "5"]


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"", "e.csv", "empty"),
        (b"Date,Time\n", "c.csv", "no column"),
        ("\ufeffDate;Time;Voltage\n".encode(), "b.csv", "byte-order mark"),
        (b"Date;Time;Voltage;Global_intensity;Global_active_power\n\xff;;;;\n", "u.csv", "utf-8"),
        (gzip.compress(b"Date;" * 1000)[:20], "z.csv.gz", "end-of-stream"),
    ],
    ids=["empty", "columns", "mark", "bytes", "cut"],
)
def test_a_file_that_is_not_what_the_mapping_says_is_named(
    tmp_path: Path, content: bytes, name: str, said: str
) -> None:
    with pytest.raises(BadFile, match=said):
        list(readings(file_of(tmp_path, content, name), HOUSEHOLD))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "time"),
        ('[time]\ncolumns=["t"]\n', "at least one"),
        ('[time]\ncolumns=["t"]\nzone="Mars"\n[[meters]]\ncolumn="v"\nmeter_id="m"\n', "zone"),
        ('encoding="klingon"\n[time]\ncolumns=["t"]\n[[meters]]\ncolumn="v"\nmeter_id="m"\n', "encoding"),
        ('[time]\ncolumns=["t"]\n[[sensors]]\ncolumn="v"\nsensor_type="power"\n', "sensor_id"),
        ('[time]\ncolumns=["t"]\nformat="x"\n', "unknown field"),
        (
            '[time]\ncolumns=["t"]\n[[meters]]\ncolumn="v"\nmeter_id="m"\naccumulate={interval_s=60,start="x"}\n',
            "start",
        ),
    ],
)
def test_a_mapping_that_cannot_be_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)

    with pytest.raises(BadMapping, match=said):
        load_mapping(path)


def test_the_mapping_in_the_documents_is_one() -> None:
    text = (MAPPINGS.parents[1] / "docs" / "operations" / "importing.md").read_text()
    block = text.partition("```toml\n")[2].partition("```")[0]

    mapping = mapped(block)

    assert mapping.meters[0].accumulate is not None
    assert mapping.sensors[0].phase == "L1"
