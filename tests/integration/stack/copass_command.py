"""Runs `python -m copass` as a person would, with a state folder and ports of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from copass.checks import is_free


def free_port_base() -> int:
    """A base with all the ports of a network free, away from the usual one."""
    for base in range(20_000 + os.getpid() % 50 * 100, 31_000, 100):
        if all(is_free(base + offset) for offset in range(30)):
            return base
    raise AssertionError("no free ports")


class Copass:
    """One network. `run` waits for the command to end, `begin` does not."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.base = free_port_base()
        self.environment = {
            **os.environ,
            "COPASS_HOME": str(home),
            "COPASS_PORT_BASE": str(self.base),
            "SEED": "0",
            "COLUMNS": "200",
        }
        for name in ("DETACH", "KAFKA"):
            self.environment.pop(name, None)

    def run(
        self, *words: str, timeout_s: float = 240, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "copass", *words],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def begin(self, *words: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "copass", *words],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def processes(self) -> list[psutil.Process]:
        """Everything that runs with this state folder."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mine = process.environ().get("COPASS_HOME") == str(self.home)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def nothing_runs(self, *, within_s: float = 5) -> None:
        """Fails unless every process of this network ends within the time."""
        deadline = time.monotonic() + within_s
        while left := self.processes():
            if time.monotonic() > deadline:
                raise AssertionError(f"still running: {[one.cmdline()[:6] for one in left]}")
            time.sleep(0.05)


@contextlib.contextmanager
def copass_in(home: Path) -> Iterator[Copass]:
    """A network that is gone afterwards, whatever the test did to it."""
    network = Copass(home)
    try:
        yield network
    finally:
        for process in network.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)


def read_until(process: "subprocess.Popen[str]", words: str) -> str:
    """What the command prints, up to the line with `words`. Fails when it ends before."""
    if process.stdout is None:
        raise AssertionError("its output is not a pipe")
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it ended without saying {words!r}:\n{said}")
