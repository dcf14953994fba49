"""up_warm and idle_memory, and a network of the bench's own to measure everything else on."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console

from copass import leftovers
from copass.bench.results import Result, Series
from copass.bench.taps import BenchError
from copass.checks import is_free

MIB = 1024 * 1024
SETTLE_S = 3.0
UP_TIMEOUT_S = 600
WARM_STARTS = 3
PORTS = range(31_000, 39_000, 100)
PORTS_PER_NETWORK = 30


class OwnNetwork:
    """A network in a temporary folder, on ports that nobody uses."""

    def __init__(self, home: Path) -> None:
        self.home = home
        base = next(
            base
            for base in PORTS
            if all(is_free(base + offset) for offset in range(PORTS_PER_NETWORK))
        )
        self.environment = {
            **os.environ,
            "COPASS_HOME": str(home),
            "COPASS_PORT_BASE": str(base),
            "SEED": "1",
        }

    def run(self, *words: str) -> float:
        """One `python -m copass` command; how long it took. Raises BenchError when it fails."""
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "copass", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=UP_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"copass {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        return time.perf_counter() - started


@contextmanager
def own_network() -> Iterator[OwnNetwork]:
    """The folder of a network, not started yet. Afterwards it is stopped and removed."""
    home = Path(tempfile.mkdtemp(prefix="copass-bench-"))
    network = OwnNetwork(home)
    try:
        yield network
    finally:
        network.run("down")
        shutil.rmtree(home, ignore_errors=True)


def start_and_time(network: OwnNetwork, console: Console) -> list[Result]:
    """Starts it from nothing, then again and again; leaves it running."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    first_s = network.run("up", "--detach")
    warm_s = []
    for _ in range(WARM_STARTS):
        network.run("down")
        warm_s.append(network.run("up", "--detach"))
    console.print(
        f"  from nothing {first_s:.1f} s, again {', '.join(f'{one:.1f}' for one in warm_s)} s"
    )
    series = (Series("warm start", "s", tuple(warm_s)),)
    return [
        Result("up_warm", median(warm_s), "s", at, goal=10, better="lower", series=series),
        Result("up_first_without_install", first_s, "s", at, goal=150, better="lower"),
    ]


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process of the network, PostgreSQL's and Python's children included."""
    roots = leftovers.alive(home / "pids").values()
    found = {one.pid: one for root in roots for one in (root, *root.children(recursive=True))}
    return list(found.values())


async def measure_idle_memory(home: Path, console: Console) -> list[Result]:
    """PSS: pages that processes share count once, in parts. RSS counts them for each."""
    await asyncio.sleep(SETTLE_S)
    infos = [one.memory_full_info() for one in processes_of(home)]
    pss, rss = (sum(getattr(info, name) for info in infos) / MIB for name in ("pss", "rss"))
    console.print(f"  {len(infos)} processes: {pss:.0f} MiB (PSS), {rss:.0f} MiB (RSS)")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return [
        Result("idle_memory", pss, "MiB", at, goal=900, better="lower"),
        Result("idle_memory_rss", rss, "MiB", at, better="lower"),
    ]
