"""Whatever is done to what was stored and promised, the check finds it and says what to do."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from tests.schemas.examples import SCHEMAS
from typer.testing import CliRunner

from smartgrid_adapters.postgres.codec import encode
from smartgrid_ops.cli.schema import schema as command
from smartgrid_ops.schema_files import check, freeze, frozen_copies, record_checksums
from smartgrid_schemas.event import Event, Plain
from smartgrid_schemas.registry import REGISTRY, Registry, name_of

NAME = "grid.switch-opened.v1"


class SwitchOpened(Event, tag=NAME, frozen=True, kw_only=True):
    switch_id: Annotated[str, Plain]


class WithPhase(Event, tag=NAME, frozen=True, kw_only=True):
    switch_id: Annotated[str, Plain]
    phase: Annotated[str, Plain] = ""


class WithOtherPhase(Event, tag=NAME, frozen=True, kw_only=True):
    switch_id: Annotated[str, Plain]
    phase: Annotated[int, Plain] = 0


class WithReason(Event, tag=NAME, frozen=True, kw_only=True):
    switch_id: Annotated[str, Plain]
    reason: Annotated[str, Plain]


class WithoutId(Event, tag=NAME, frozen=True, kw_only=True):
    switch_id: Annotated[str, Plain] = ""


class Wider(Event, tag=NAME, frozen=True, kw_only=True):
    switch_id: Annotated[str | int, Plain]


class Renamed(Event, tag=NAME, frozen=True, kw_only=True):
    switch: Annotated[str, Plain] = ""


def of(kind: type[Event]) -> Registry:
    return Registry({kind: "t"}, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder where the first shape of one event is frozen and has an example."""
    path = tmp_path / "golden" / NAME / "full.msgpack"
    path.parent.mkdir(parents=True)
    path.write_bytes(encode(SwitchOpened(switch_id="q1")))
    record_checksums(tmp_path / "golden")
    freeze(tmp_path, of(SwitchOpened))
    return tmp_path


def test_an_event_that_is_as_it_was_is_fine(folder: Path) -> None:
    assert check(folder, of(SwitchOpened)) == []
    assert freeze(folder, of(SwitchOpened)) == []


def test_a_new_field_with_a_default_is_fine_once_it_is_frozen(folder: Path) -> None:
    assert check(folder, of(WithPhase)) == [f"{NAME} is not frozen as it is now: run smartgrid schema freeze"]

    assert freeze(folder, of(WithPhase)) == [f"{NAME}.r2"]

    assert check(folder, of(WithPhase)) == []
    assert len(frozen_copies(folder, NAME)) == 2


def test_what_was_promised_in_between_counts_too(folder: Path) -> None:
    freeze(folder, of(WithPhase))

    problems = check(folder, of(WithOtherPhase))

    assert any("$.phase: the default was '' and is 0" in problem for problem in problems)
    assert any("$.phase: type was 'string' and is 'integer'" in problem for problem in problems)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (WithReason, "$.reason: is required now; give it a default"),
        (WithoutId, "$.switch_id: is not always written now; keep it required: earlier readers"),
        (Wider, "$.switch_id: integer may be written now; write it in a new field with a default: earlier readers"),
        (Renamed, "$.switch_id: is gone; put it back"),
    ],
)
def test_a_broken_promise_is_told_with_what_to_do_and_cannot_be_frozen(
    folder: Path, kind: type[Event], told: str
) -> None:
    problems = check(folder, of(kind))

    broken = [problem for problem in problems if told in problem]
    assert len(broken) == 1
    assert broken[0].endswith("write grid.switch-opened.v2 and an upcaster: docs/evolving-events.md")
    with pytest.raises(ValueError, match=r"grid\.switch-opened\.v2"):
        freeze(folder, of(kind))
    assert check(folder, of(SwitchOpened)) == []


def test_a_field_that_was_renamed_loses_what_is_stored(folder: Path) -> None:
    assert f"{NAME}/full.msgpack loses something when it is written again; was a field renamed?" in check(
        folder, of(Renamed)
    )


def test_an_event_that_is_forgotten_is_missed(folder: Path) -> None:
    problems = check(folder, Registry({}, {}))

    assert problems == [f"{NAME} was promised, but no struct has this name; put it back: such events are stored"]


def _edit(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("path", "change", "told"),
    [
        (f"golden/{NAME}/full.msgpack", _edit, f"golden/{NAME}/full.msgpack was edited; put it back"),
        (f"golden/{NAME}/full.msgpack", _flip, f"{NAME}/full.msgpack is not readable any more"),
        (f"golden/{NAME}/full.msgpack", Path.unlink, f"golden/{NAME}/full.msgpack is gone; put it back"),
        (f"golden/{NAME}/full.msgpack", Path.unlink, f"{NAME} has no stored example: add one"),
        (f"golden/{NAME}/more.msgpack", Path.touch, f"golden/{NAME}/more.msgpack is not in golden/checksums.txt"),
        (f"frozen/{NAME}.json", _edit, f"frozen/{NAME}.json was edited; put it back"),
        (f"frozen/{NAME}.json", Path.unlink, f"{NAME} is not frozen as it is now"),
    ],
)
def test_files_that_were_touched_are_named(folder: Path, path: str, change: Callable[[Path], None], told: str) -> None:
    change(folder / path)

    assert any(problem.startswith(told) for problem in check(folder, of(SwitchOpened)))


def test_the_command_counts_what_it_checked() -> None:
    result = CliRunner().invoke(command, ["check"])

    examples, frozen = (len(list(SCHEMAS.glob(form))) for form in ("golden/*/*.msgpack", "frozen/*.json"))
    told = f"{len(REGISTRY.events)} events, {examples} stored examples, {frozen} frozen schemas: all readable\n"
    assert (result.exit_code, result.stdout) == (0, told)


def test_the_command_names_each_problem_and_ends_with_1(tmp_path: Path) -> None:
    for part in ("golden", "frozen"):
        shutil.copytree(SCHEMAS / part, tmp_path / part)
    example = next(tmp_path.glob("golden/*/*.msgpack"))
    _flip(example)

    result = CliRunner().invoke(command, ["check", "--folder", str(tmp_path)])

    assert result.exit_code == 1
    assert f"golden/{example.parent.name}/{example.name} was edited" in result.stderr


def test_the_command_freezes_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "frozen").mkdir()

    result = CliRunner().invoke(command, ["freeze", "--folder", str(tmp_path)])

    assert (result.exit_code, result.stdout) == (0, "".join(f"froze {name_of(kind)}\n" for kind in REGISTRY.topics))


def test_a_folder_without_schemas_is_a_bad_setting(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["check", "--folder", str(tmp_path)])

    assert (result.exit_code, "name one by --folder" in result.stderr) == (2, True)
