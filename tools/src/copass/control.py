"""What `python -m copass` does to a running network: find it, ask it, stop it."""

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from copass import leftovers
from copass.processes import StartError
from copass.supervisor import control_path, take_lock

DOWN_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 130.0


def ask(home: Path, command: str, **fields: Any) -> dict[str, Any]:
    """Send one command to the supervisor. Raises StartError when it refuses or none is there."""
    if not home.is_dir():
        raise StartError("the network does not run: `make up` starts it")
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.connect(control_path(descriptor))
            connection.sendall(json.dumps({"command": command, **fields}).encode() + b"\n")
            with connection.makefile() as file:
                answer: dict[str, Any] = json.loads(file.readline() or "{}")
    except (FileNotFoundError, ConnectionError) as error:
        raise StartError("the network does not run: `make up` starts it") from error
    finally:
        os.close(descriptor)
    if not answer.get("ok"):
        raise StartError(str(answer.get("message", "the supervisor gave no answer")))
    return answer


def read_run_file(home: Path) -> dict[str, Any] | None:
    """run.json, or None when it is absent or half there."""
    try:
        run: dict[str, Any] = json.loads((home / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return run


def runs(home: Path) -> bool:
    """Whether a supervisor holds the folder."""
    if not (home / "lock").exists():
        return False
    lock = take_lock(home)
    if lock is None:
        return True
    lock.close()
    return False


def down(home: Path) -> str:
    """Stop everything, what an earlier run left too; in words what was done. Raises StartError."""
    if not home.is_dir():
        return "nothing runs"
    pids = home / "pids"
    try:
        was_running = runs(home)
        if was_running:
            _stop_supervisor(pids, home)
        left = leftovers.stop_all(pids)
    except (PermissionError, psutil.AccessDenied) as error:
        raise StartError(f"{home} belongs to another user, who can stop the network") from error
    for name in ("run.json", "control.sock"):
        (home / name).unlink(missing_ok=True)
    if left:
        return f"stopped what an earlier run left: {', '.join(left)}"
    return "stopped" if was_running else "nothing runs"


def _stop_supervisor(pids: Path, home: Path) -> None:
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    asked = False
    while runs(home):
        supervisor = leftovers.alive(pids).get("supervisor")
        if supervisor is not None and not asked:
            supervisor.send_signal(signal.SIGTERM)
            asked = True
        if time.monotonic() > deadline:
            if supervisor is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    supervisor.kill()  # what it runs dies with it
                    supervisor.wait(10)
            return
        time.sleep(0.05)
