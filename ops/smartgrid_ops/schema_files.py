"""
What every version of every event promised, as files: stored examples in ``golden/``, JSON Schemas in ``frozen/``.

Both only grow, and checksums beside them tell when somebody edits one. ``frozen/<name>.json`` is what an event promised
first, ``frozen/<name>.r2.json`` what it promises since it gained a field, and so on.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import msgpack

from smartgrid_adapters.postgres.codec import Codec, UndecodableEvent, encode
from smartgrid_schemas.compatibility import Schema, breaks, same
from smartgrid_schemas.event import Event
from smartgrid_schemas.published import json_schema_of
from smartgrid_schemas.registry import REGISTRY, Registry, parts_of

GOLDEN: Final = "golden"
FROZEN: Final = "frozen"
CHECKSUMS: Final = "checksums.txt"

_REVISION: Final = re.compile(r"\.r([0-9]+)\Z")


def frozen_copies(folder: Path, name: str) -> list[Schema]:
    """Return all schemas that the event *name* ever promised, oldest first."""
    paths = sorted([*folder.glob(f"{FROZEN}/{name}.json"), *folder.glob(f"{FROZEN}/{name}.r*.json")], key=_revision)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def examples(folder: Path, name: str) -> list[Path]:
    """Return the stored examples of the event *name*."""
    return sorted(folder.glob(f"{GOLDEN}/{name}/*.msgpack"))


def check(folder: Path, registry: Registry = REGISTRY) -> list[str]:
    """
    Return what is wrong with the events of *registry*, each with what to do; nothing if all is well.

    Guarantees, if nothing is wrong:
        * Today's code reads all that was ever stored (BACKWARD_TRANSITIVE), and re-writes it without loss.
        * Code of any earlier time reads what today's writes (FULL_TRANSITIVE): every event of today is on a topic.
        * Every stored example reads in today's shape, by way of the upcasters.
    """
    problems = [*_edited(folder / GOLDEN), *_edited(folder / FROZEN), *_forgotten(folder, registry)]
    for name, kind in registry.events.items():
        copies = frozen_copies(folder, name)
        problems += _broken(name, kind, copies, readers=name not in registry.older)
        if not copies or not same(copies[-1], json_schema_of(kind)):
            problems.append(f"{name} is not frozen as it is now: run smartgrid schema freeze")
        problems += _misread(folder, name, registry)
    return problems


def freeze(folder: Path, registry: Registry = REGISTRY) -> list[str]:
    """
    Write down what events promise that are new or gained something, and return their names.

    Raises:
        ValueError: An event broke what it promised; nothing is written.
    """
    fresh: dict[str, dict[str, Any]] = {}
    for name, kind in registry.events.items():
        copies = frozen_copies(folder, name)
        if broken := _broken(name, kind, copies, readers=name not in registry.older):
            raise ValueError("\n".join(broken))
        schema = json_schema_of(kind, prose=False)
        if not copies or not same(copies[-1], schema):
            fresh[f"{name}.r{len(copies) + 1}" if copies else name] = schema
    (folder / FROZEN).mkdir(parents=True, exist_ok=True)
    for stem, schema in fresh.items():
        path = folder / FROZEN / f"{stem}.json"
        path.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")
    record_checksums(folder / FROZEN)
    return list(fresh)


def record_checksums(part: Path) -> None:
    """Add the files below *part* that its checksums do not list yet."""
    listed = _checksums(part)
    new = [path for path in _files(part) if path not in listed]
    with (part / CHECKSUMS).open("a", encoding="utf-8") as file:
        file.writelines(f"{_checksum(part / path)}  {path}\n" for path in new)


def _broken(name: str, kind: type[Event], copies: Sequence[Schema], *, readers: bool) -> list[str]:
    fact, version = parts_of(name)
    schema = json_schema_of(kind)
    problems = dict.fromkeys(problem for copy in copies for problem in breaks(copy, schema, readers=readers))
    return [
        f"{name} {problem}. If it must be so, leave this struct as it was, and write {fact}.v{version + 1} and an "
        "upcaster: docs/evolving-events.md"
        for problem in problems
    ]


def _misread(folder: Path, name: str, registry: Registry) -> Iterator[str]:
    paths = examples(folder, name)
    if not paths:
        yield f"{name} has no stored example: add one to tests/schemas/examples.py and run it"
    for path in paths:
        data = path.read_bytes()
        try:
            event = Codec(registry).decode(name, data)
            again = encode(msgpack.decode(data, type=registry.events[name]))
        except (UndecodableEvent, msgspec.DecodeError) as error:
            yield f"{name}/{path.name} is not readable any more: {error}"
            continue
        if type(event) is not registry.today_of(name):
            yield f"{name}/{path.name} is read as {type(event).__name__}"
        if not _holds(msgpack.decode(data), msgpack.decode(again)):
            yield f"{name}/{path.name} loses something when it is written again; was a field renamed?"


def _holds(old: Any, new: Any) -> bool:  # noqa: ANN401  # anything that MessagePack holds
    """Return whether *new* has all that *old* has: only fields and places at the end may have come."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and _holds(value, new[key]) for key, value in old.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(old, list) and isinstance(new, list):
        return len(old) <= len(new) and all(map(_holds, old, new))  # pyright: ignore[reportUnknownArgumentType]
    return bool(old == new)


def _forgotten(folder: Path, registry: Registry) -> Iterator[str]:
    frozen = {_REVISION.sub("", path.stem) for path in folder.glob(f"{FROZEN}/*.json")}
    stored = {path.parent.name for path in folder.glob(f"{GOLDEN}/*/*.msgpack")}
    for name in sorted((frozen | stored) - registry.events.keys()):
        yield f"{name} was promised, but no struct has this name; put it back: such events are stored"


def _edited(part: Path) -> Iterator[str]:
    listed, found = _checksums(part), _files(part)
    for path in sorted({*listed, *found}):
        where = f"{part.name}/{path}"
        if path not in found:
            yield f"{where} is gone; put it back: these files only grow"
        elif path not in listed:
            yield f"{where} is not in {part.name}/{CHECKSUMS}: python tests/schemas/examples.py adds it"
        elif listed[path] != _checksum(part / path):
            yield f"{where} was edited; put it back: what is stored does not change either"


def _files(part: Path) -> list[str]:
    return sorted(str(path.relative_to(part)) for path in part.rglob("*") if path.is_file() and path.name != CHECKSUMS)


def _checksums(part: Path) -> Mapping[str, str]:
    path = part / CHECKSUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {file: checksum for checksum, file in (line.split("  ", 1) for line in lines)}


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _revision(path: Path) -> int:
    found = _REVISION.search(path.stem)
    return int(found[1]) if found else 1
