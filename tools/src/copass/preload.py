"""Starts the services quickly: what they have in common is loaded once, and each is a fork of it.

Nine Python processes that each import the same libraries take most of the time of a warm start on
two cores. This process imports them, then forks on request; the fork runs `python -m SERVICE …`
as if it had been started so, and shares the memory of what was loaded. It is used while the network
comes up, and gone afterwards: a process that is started again is started in the ordinary way.

`python -m copass.preload FD` reads one JSON line per process from the socket FD and answers
`{"pid": …}`. The process becomes the child of the nearest subreaper, which is the supervisor.
"""

import ctypes
import gc
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from copass.processes import Process, Program, spawn

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
ANSWER_TIMEOUT_S = 30.0  # the first answer comes when everything is loaded
ADOPTED_WITHIN_S = 5.0

# Besides all of `common`: what uvicorn would load only when it starts.
SERVER_MODULES = (
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Forked:
    """A process that was forked for us: what is used of subprocess.Popen."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)


class Preloaded:
    """The supervisor's side. The caller must be a child subreaper."""

    def __init__(self, log: Path) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_TIMEOUT_S)
        self._socket: socket.socket | None = ours
        with theirs:
            self._process = spawn(
                Program(
                    name="preload",
                    command=(sys.executable, "-u", "-m", "copass.preload", str(theirs.fileno())),
                    log=log,
                    environment={"MALLOC_ARENA_MAX": "2"},
                ),
                pass_fds=(theirs.fileno(),),
            )

    def launch(self, program: Program) -> Process:
        """Start a program; by a fork when it is `python -m …` and there is still what forks."""
        if self._socket is None or program.command[:2] != (sys.executable, "-m"):
            return spawn(program)
        request = {
            "parent": os.getpid(),
            "name": program.name,
            "words": program.command[2:],
            "environment": dict(program.environment),
            "folder": str(program.folder or os.getcwd()),
            "log": str(program.log),
        }
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            with self._socket.makefile("rb") as answers:
                return Forked(int(json.loads(answers.readline())["pid"]))
        except (OSError, ValueError, KeyError) as error:
            self.close()
            print(f"preload: {error!r}", file=sys.stderr)
            return spawn(program)

    def close(self) -> None:
        """End it; from now on everything is started in the ordinary way."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def load() -> None:
    """Import what the services share. Nothing of it starts a thread or opens anything."""
    common = import_module("common")
    names = [f"common.{module.name}" for module in pkgutil.iter_modules(common.__path__)]
    for name in (*names, *SERVER_MODULES):
        import_module(name)
    gc.collect()
    gc.freeze()  # so that a collection in a fork does not copy every page


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns the request in the fork, None in the end."""
    with requests, requests.makefile("rb") as lines:
        for line in lines:
            request: dict[str, Any] = json.loads(line)
            reading, writing = os.pipe()
            middle = os.fork()
            if middle == 0:
                pid = os.fork()
                if pid == 0:
                    return request
                os.write(writing, str(pid).encode())
                os._exit(0)  # orphans the new process: the supervisor adopts it
            os.waitpid(middle, 0)
            pid = int(os.read(reading, 32))
            os.close(reading)
            os.close(writing)
            requests.sendall(json.dumps({"pid": pid}).encode() + b"\n")
    return None


def become(request: dict[str, Any]) -> None:
    """Take on the identity of the process that was asked for."""
    deadline = time.monotonic() + ADOPTED_WITHIN_S
    while os.getppid() != request["parent"]:
        if time.monotonic() > deadline:
            os._exit(1)  # the supervisor is gone
        time.sleep(0.001)
    os.setsid()
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    _libc.prctl(_PR_SET_NAME, request["name"].encode()[:15], 0, 0, 0)
    if os.getppid() != request["parent"]:
        os._exit(1)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, 1024)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])


def main() -> None:
    load()
    request = serve(socket.socket(fileno=int(sys.argv[1])))
    if request is not None:
        become(request)
        module, *words = request["words"]
        sys.argv = [module, *words]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
