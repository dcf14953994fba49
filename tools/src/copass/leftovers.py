"""What an earlier run left: found by pid and start time, so that no other process is touched."""

import contextlib
import json
import signal
from pathlib import Path

import psutil

# A pid file is written just after the start; clocks are read in hundredths of a second.
START_TIME_TOLERANCE_S = 0.05


def note(folder: Path, name: str, pid: int) -> None:
    """Remember that process `pid` is ours."""
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(pid).create_time()
        (folder / name).write_text(json.dumps({"pid": pid, "started": started}))


def forget(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)


def _noted(file: Path) -> psutil.Process | None:
    try:
        noted = json.loads(file.read_text())
        process = psutil.Process(int(noted["pid"]))
        same = abs(process.create_time() - float(noted["started"])) <= START_TIME_TOLERANCE_S
        lives = same and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return process if lives else None


def alive(folder: Path) -> dict[str, psutil.Process]:
    """The noted processes that still run, by name."""
    found = {file.name: _noted(file) for file in folder.glob("*")}
    return {name: process for name, process in found.items() if process is not None}


def stop_all(folder: Path, *, timeout_s: float = 10.0) -> list[str]:
    """Stop what is left and forget it; the names of what was running. Raises psutil.AccessDenied
    when a process belongs to another user."""
    left = alive(folder)
    for process in left.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
    _, stubborn = psutil.wait_procs(left.values(), timeout=timeout_s)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=timeout_s)
    for file in folder.glob("*"):
        file.unlink(missing_ok=True)
    return sorted(left)
