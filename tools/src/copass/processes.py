"""Start and stop one program so that it never outlives whoever started it."""

import asyncio
import ctypes
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Protocol

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1

# Looked up here because the child may only call things that were ready before the fork.
_libc = ctypes.CDLL(None, use_errno=True)


class StartError(Exception):
    """A program did not become ready. The text is for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `unprivileged` programs refuse to run as root (PostgreSQL)."""

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    unprivileged: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """Another user for programs that refuse root.

    In a user namespace of its own a process is that user to itself and still root's for the files
    outside: it reads a clone below /root and writes folders that belong to root, without a new
    system account and without opening any folder to others. Where the kernel forbids that (many
    containers), it truly becomes the user, and `own` must hand it its folders.
    """

    uid: int
    gid: int
    namespace: bool

    def assume(self) -> None:
        """In the child, between fork and exec."""
        if not self.namespace:
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)
            return
        if _libc.unshare(_CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        maps = {"setgroups": "deny", "uid_map": f"{self.uid} 0 1", "gid_map": f"{self.gid} 0 1"}
        for name, text in maps.items():
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)

    def own(self, path: Path) -> None:
        if not self.namespace:
            os.chown(path, self.uid, self.gid)


@cache
def unprivileged_identity() -> Identity | None:
    """Who PostgreSQL runs as; None when we are not root and it runs as ourselves."""
    if os.geteuid() != 0:
        return None
    entries = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    if not entries:
        raise StartError("PostgreSQL refuses to run as root, and this machine has no other user")
    entry = next((one for one in entries if one.pw_name == "nobody"), entries[0])
    namespaced = Identity(entry.pw_uid, entry.pw_gid, namespace=True)
    probe = os.fork()
    if probe == 0:
        try:
            namespaced.assume()
        except BaseException:
            os._exit(1)
        os._exit(0)
    allowed = os.waitpid(probe, 0)[1] == 0
    return namespaced if allowed else replace(namespaced, namespace=False)


def child_setup(program: Program) -> Callable[[], None]:
    """What the child does between fork and exec."""
    parent = os.getpid()
    drop = unprivileged_identity() if program.unprivileged else None
    orphan_signal = int(program.orphan_signal)

    def setup() -> None:
        os.setsid()  # Ctrl-C at the terminal reaches the supervisor alone, which stops the rest
        if drop is not None:
            drop.assume()
        # After the change of identity, which would clear it.
        _libc.prctl(_PR_SET_PDEATHSIG, orphan_signal, 0, 0, 0)
        if drop is None and os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return setup


class Process(Protocol):
    """What is asked of a process; subprocess.Popen is one."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...
    def terminate(self) -> None: ...


def spawn(program: Program, *, pass_fds: tuple[int, ...] = ()) -> "subprocess.Popen[bytes]":
    """Start it with its output appended to its log. It dies with the calling thread."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    with program.log.open("ab") as log:
        try:
            return subprocess.Popen(
                program.command,
                env={**os.environ, **program.environment},
                cwd=program.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=child_setup(program),
                pass_fds=pass_fds,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise StartError(f"{program.name} cannot be started: {error}") from error


def log_tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def end_of_log(path: Path) -> str:
    """The end of a log, introduced; with the cause in plain words when it is a full disk."""
    tail = log_tail(path)
    full = "the disk is full: free some space\n" if "No space left on device" in tail else ""
    return f"{full}the end of {path}:\n{tail}"


async def wait_ready(
    program: Program,
    process: "subprocess.Popen[bytes]",
    answers: Callable[[], Awaitable[None]],
    *,
    timeout_s: float = 30.0,
) -> None:
    """Ask until `answers` returns without an exception. Raises StartError when it does not."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.02
    while True:
        if process.poll() is not None:
            raise StartError(
                f"{program.name} stopped while starting (exit code {process.returncode})\n"
                f"{end_of_log(program.log)}"
            )
        try:
            async with asyncio.timeout(5):
                await answers()
        except Exception as error:
            if time.monotonic() > deadline:
                raise StartError(
                    f"{program.name} did not answer within {timeout_s:.0f} s ({error!r}); "
                    f"see {program.log}"
                ) from error
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.25)
        else:
            return


def stop(
    process: "subprocess.Popen[bytes]", stop_signal: signal.Signals, *, timeout_s: float = 10.0
) -> None:
    """Ask it to stop; SIGKILL when it has not within the time."""
    if process.poll() is not None:
        return
    process.send_signal(stop_signal)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
