"""idle_memory: what all processes of a network that does nothing keep in memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console

from copass import leftovers
from copass.bench.results import Result

MIB = 1024 * 1024
SETTLE_S = 3.0


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
