"""One product per home, told by a lock that the kernel gives back and by process ids that are not taken on trust."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from smartgrid_ops.home import MARK, Home, HomeInUse, HomeUnusable, Pids, is_gone


def test_a_claimed_home_is_private_and_cannot_be_claimed_again(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.path.mkdir(mode=0o755)
    home.claim()

    assert home.path.stat().st_mode & 0o777 == 0o700
    with pytest.raises(HomeInUse, match=str(home.path)):
        Home(home.path).claim()


def test_a_home_below_a_file_is_unusable_and_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(HomeUnusable, match=str(tmp_path / "file")):
        Home(tmp_path / "file" / "home").claim()


def test_the_process_ids_are_published_in_the_form_of_the_contract(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.claim()
    home.write_pids(Pids(supervisor=101, api=[120], worker=[121], postgres=110))

    assert home.pids_file.read_bytes() == b'{"supervisor":101,"api":[120],"worker":[121],"postgres":110}\n'
    home.forget_pids()
    assert not home.was_left


def test_a_left_child_is_ended_and_a_stranger_with_a_recorded_number_is_not(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.claim()
    code = "import time; print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, MARK, "7"], stdout=subprocess.PIPE)
    stranger = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        for process in (child, stranger):  # a command line can be read once its program runs
            assert process.stdout is not None
            process.stdout.readline()
        home.write_pids(Pids(supervisor=1, api=[child.pid], worker=[stranger.pid]))

        assert home.end_left_over() == [child.pid]
        assert is_gone(child.pid)
        assert stranger.poll() is None
    finally:
        for process in (child, stranger):
            process.kill()
            process.communicate()


@pytest.mark.parametrize("text", ["", "{", '{"supervisor":"x"}'])
def test_a_damaged_list_of_processes_is_no_obstacle(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    home.claim()
    home.pids_file.write_text(text)

    assert home.end_left_over() == []


LIFELINE = """
import sys, time
from smartgrid_ops.lifeline import follow
follow(int(sys.argv[1]))
print("on", flush=True)
time.sleep(60)
"""


def test_a_process_ends_when_its_lifeline_is_cut() -> None:
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", LIFELINE, str(reading)], pass_fds=(reading,), stdout=subprocess.PIPE
    ) as process:
        os.close(reading)
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        os.close(writing)

        assert process.wait(10) == -15
