"""A start that is cut off at any moment leaves no process, and the next start succeeds."""

import contextlib
import json
import os
import signal
import subprocess
import time

import psutil
import pytest
from copass_command import Copass, read_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

STOPPED_WITHIN_S = 60


def end(process: "subprocess.Popen[str]") -> str:
    """What else it prints until its end."""
    said, _ = process.communicate(timeout=STOPPED_WITHIN_S)
    return said


@pytest.mark.whole
def test_ctrl_c_at_each_step_leaves_nothing_and_the_next_start_goes_on(copass: Copass) -> None:
    """One folder through all of it: each start finds what the one before left half-done."""
    moments = ("PostgreSQL", "databases", "migrations", "services", "demo network")
    for moment in moments:
        process = copass.begin("up", "--detach", SEED="1")
        said = read_until(process, moment)
        process.send_signal(signal.SIGINT)
        said += end(process)
        assert process.returncode == 130, said
        assert "stopped" in said
        copass.nothing_runs()
        assert not (copass.home / "run.json").exists()
    up = copass.run("up", "--detach", timeout_s=600, SEED="1")
    assert up.returncode == 0, up.stdout + up.stderr
    run = json.loads((copass.home / "run.json").read_text())
    assert run["cards"]
    assert run["readers"]
    demo = copass.run("demo", timeout_s=200)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert copass.run("down").returncode == 0
    copass.nothing_runs()


@pytest.mark.parametrize(
    "after_s",
    [0.6, *(pytest.param(after_s, marks=pytest.mark.whole) for after_s in (0, 0.3, 1, 1.5, 2.5))],
)
def test_ctrl_c_after_any_time(copass: Copass, after_s: float) -> None:
    process = copass.begin("up")
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    end(process)
    assert process.returncode != 0
    copass.nothing_runs()


@pytest.mark.whole
def test_ctrl_c_stops_a_running_network(copass: Copass) -> None:
    process = copass.begin("up")
    read_until(process, "Ctrl-C stops it")
    process.send_signal(signal.SIGINT)
    assert "stopped" in end(process)
    copass.nothing_runs()
    assert not (copass.home / "run.json").exists()


@pytest.mark.whole
def test_a_closed_terminal_stops_a_running_network(copass: Copass) -> None:
    process = copass.begin("up")
    read_until(process, "Ctrl-C stops it")
    process.kill()
    process.communicate(timeout=10)
    copass.nothing_runs(within_s=STOPPED_WITHIN_S)


@pytest.mark.whole
def test_kill_9_of_the_supervisor_leaves_no_orphan_and_up_starts_again(copass: Copass) -> None:
    assert copass.run("up", "--detach").returncode == 0
    run = json.loads((copass.home / "run.json").read_text())
    os.kill(run["supervisor"], signal.SIGKILL)
    copass.nothing_runs(within_s=15)
    up = copass.run("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    # Again, and this time `down` finds what is left: nothing, but the files.
    run = json.loads((copass.home / "run.json").read_text())
    os.kill(run["supervisor"], signal.SIGKILL)
    down = copass.run("down")
    assert down.returncode == 0
    copass.nothing_runs()
    assert not (copass.home / "run.json").exists()
    assert copass.run("status").returncode == 3


@pytest.mark.whole
def test_a_supervisor_that_hangs_is_killed_with_all_it_runs(
    copass: Copass, monkeypatch: pytest.MonkeyPatch
) -> None:
    from copass import control

    assert copass.run("up", "--detach").returncode == 0
    run = json.loads((copass.home / "run.json").read_text())
    os.kill(run["supervisor"], signal.SIGSTOP)
    monkeypatch.setattr(control, "DOWN_TIMEOUT_S", 2.0)
    control.down(copass.home)
    copass.nothing_runs()


@pytest.mark.whole
def test_two_starts_at_once_make_one_network(copass: Copass) -> None:
    first, second = (copass.begin("up", "--detach") for _ in range(2))
    said = [one.communicate(timeout=240)[0] for one in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert sum("already runs" in text for text in said) == 1
    assert copass.run("down").returncode == 0
    copass.nothing_runs()


@pytest.mark.whole
def test_every_process_killed_is_started_again(copass: Copass) -> None:
    assert copass.run("up", "--detach").returncode == 0
    before = json.loads((copass.home / "run.json").read_text())["pids"]
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    def all_ready() -> bool:
        status = copass.run("status").stdout
        lines = [line.split() for line in status.splitlines() if line.split()[:1]]
        states = {words[0]: words[1] for words in lines if words[0] in before}
        return set(states.values()) == {"ready"}

    deadline = time.monotonic() + 120
    while not all_ready():
        assert time.monotonic() < deadline, copass.run("status").stdout
        time.sleep(0.5)
    after = json.loads((copass.home / "run.json").read_text())["pids"]
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    zombies = [
        one
        for one in psutil.Process(
            json.loads((copass.home / "run.json").read_text())["supervisor"]
        ).children(recursive=True)
        if one.status() == psutil.STATUS_ZOMBIE
    ]
    time.sleep(5)  # two looks of the one who reaps
    with contextlib.suppress(psutil.NoSuchProcess):
        assert not [one for one in zombies if one.is_running()]
    assert copass.run("down").returncode == 0
    copass.nothing_runs()
