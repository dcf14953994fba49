"""What an earlier run left is found by pid and start time; nothing else is touched."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from copass import leftovers


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_that_we_noted_is_stopped(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    leftovers.note(tmp_path, "sleeper", sleeper.pid)
    assert list(leftovers.alive(tmp_path)) == ["sleeper"]
    assert leftovers.stop_all(tmp_path) == ["sleeper"]
    assert not psutil.pid_exists(sleeper.pid)
    assert not list(tmp_path.iterdir())


def test_another_process_with_the_same_pid_is_left_alone(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    started = psutil.Process(sleeper.pid).create_time() - 100
    (tmp_path / "sleeper").write_text(json.dumps({"pid": sleeper.pid, "started": started}))
    assert leftovers.stop_all(tmp_path) == []
    assert sleeper.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "started": 1}', '{"pid": 1}'])
def test_a_half_written_note_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "thing").write_text(text)
    assert leftovers.stop_all(tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_nothing_noted_is_nothing_to_stop(tmp_path: Path) -> None:
    assert leftovers.stop_all(tmp_path / "absent") == []
