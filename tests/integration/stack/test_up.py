"""`make up` and its companions: what a person meets, also when something is in the way."""

import json
import os
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from copass_command import Copass

pytestmark = pytest.mark.timeout(600)


def test_the_whole_life_of_a_network(copass: Copass) -> None:
    """One start serves many questions: it is the slow part."""
    up = copass.run("up", "--detach")
    assert up.returncode == 0, up.stdout + up.stderr
    run = json.loads((copass.home / "run.json").read_text())
    assert run["access"] == f"http://127.0.0.1:{copass.base + 3}"
    assert stat.S_IMODE((copass.home / "run.json").stat().st_mode) == 0o600
    names = {f"{name}-api" for name in ("identity", "timebank", "access", "places", "portal")}
    names |= {f"{name}-worker" for name in ("identity", "timebank", "access", "places")}
    assert set(run["pids"]) == names | {"postgres", "valkey", "kafka"}
    for name in ("identity", "timebank", "access", "places", "portal"):
        with urllib.request.urlopen(f"{run[name]}/readyz", timeout=5) as answer:
            assert answer.status == 200

    again = copass.run("up", "--detach")
    assert again.returncode == 0
    assert "already runs" in again.stdout
    assert run["identity"] in again.stdout
    assert json.loads((copass.home / "run.json").read_text())["pids"] == run["pids"]

    status = copass.run("status")
    assert status.returncode == 0
    assert "ready" in status.stdout
    assert "identity-worker" in status.stdout

    restarted = copass.run("restart", "places-api")
    assert restarted.returncode == 0, restarted.stderr
    pids = json.loads((copass.home / "run.json").read_text())["pids"]
    assert pids["places-api"] != run["pids"]["places-api"]

    assert copass.run("kill", "valkey", "--stay-down").returncode == 0
    assert copass.run("start", "valkey").returncode == 0

    unknown = copass.run("restart", "tomcat")
    assert unknown.returncode == 1
    assert "there is no process tomcat" in unknown.stderr
    assert "identity-api" in unknown.stderr

    logs = copass.run("logs", "identity-api", "--no-follow")
    assert "identity-api │" in logs.stdout
    assert copass.run("logs", "tomcat", "--no-follow").returncode == 1

    down = copass.run("down")
    assert down.returncode == 0
    copass.nothing_runs()
    assert not (copass.home / "run.json").exists()
    assert copass.run("down").stdout.strip() == "nothing runs"
    assert copass.run("status").returncode == 3


def test_a_taken_port_is_named_with_who_has_it_and_how_to_move(copass: Copass) -> None:
    with socket.create_server(("127.0.0.1", copass.base + 3)):
        up = copass.run("up", "--detach")
    assert up.returncode == 1
    assert f"port {copass.base + 3}, needed by access-api, is taken by" in up.stderr
    assert f"(pid {os.getpid()})" in up.stderr
    assert "COPASS_PORT_BASE=" in up.stderr
    copass.nothing_runs()
    assert not (copass.home / "run.json").exists()


def test_a_port_taken_on_all_addresses_counts_too(copass: Copass) -> None:
    with socket.create_server(("", copass.base)):
        up = copass.run("up", "--detach")
    assert up.returncode == 1
    assert f"port {copass.base}, needed by portal-api" in up.stderr


def can_mount() -> bool:
    trial = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(trial, capture_output=True, timeout=30).returncode == 0
    except OSError:
        return False


def on_a_small_disk(
    folder: Path, command: list[str], environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a command that sees a disk of 30 MiB at `folder`."""
    mount = 'mount -t tmpfs -o size=30m none "$0" && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, str(folder), *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not can_mount(), reason="may not mount a small disk here")
def test_too_little_room_is_told_before_anything_starts(copass: Copass) -> None:
    command = [sys.executable, "-m", "copass", "up", "--detach"]
    up = on_a_small_disk(copass.home, command, copass.environment)
    assert up.returncode == 1, up.stdout + up.stderr
    assert "the disk is almost full" in up.stderr
    assert "needs 400 MiB free" in up.stderr
    assert "COPASS_HOME" in up.stderr
    copass.nothing_runs()


@pytest.mark.skipif(not can_mount(), reason="may not mount a small disk here")
def test_a_disk_that_fills_while_starting_is_told(copass: Copass, unused_port: int) -> None:
    script = (
        "import asyncio, pathlib, sys; from copass import servers; "
        "server = servers.postgres(pathlib.Path(sys.argv[1]), int(sys.argv[2]), 'secret'); "
        "asyncio.run(servers.start(server))"
    )
    command = [sys.executable, "-c", script, str(copass.home), str(unused_port)]
    started = on_a_small_disk(copass.home, command, copass.environment)
    assert started.returncode == 1
    assert "the disk is full: free some space" in started.stderr
    copass.nothing_runs()


def test_a_folder_of_another_user_is_refused(copass: Copass) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make one")
    os.chown(copass.home, 12345, 12345)
    up = copass.run("up", "--detach")
    assert up.returncode == 1
    assert "belongs to user 12345" in up.stderr


def test_a_folder_that_cannot_be_made_is_refused(copass: Copass) -> None:
    file = copass.home / "file"
    file.touch()
    up = copass.run("up", "--detach", COPASS_HOME=str(file))
    assert up.returncode == 1
    assert "cannot be written" in up.stderr


def test_commands_need_a_running_network(copass: Copass) -> None:
    for words in (("restart", "valkey"), ("kill", "valkey"), ("start", "valkey")):
        answer = copass.run(*words)
        assert answer.returncode == 1
        assert "`make up` starts it" in answer.stderr
