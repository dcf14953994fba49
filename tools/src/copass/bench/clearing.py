"""clearing_latency_p99: from the request for a transfer to another city until both have settled."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from rich.console import Console

from copass.bench.results import Result, Series
from copass.demo import Story
from copass.demo_clearing import Clearing
from copass.statistics import percentiles


async def measure_clearing(story: Story, *, trials: int, console: Console) -> list[Result]:
    """One Result in milliseconds, of one transfer after the other; its series holds every trial.

    The source shows a transfer as settled when it has heard that the destination posted it.
    """
    clearing = Clearing(story)
    latencies_ms: list[float] = []
    for _ in range(trials):
        started = time.perf_counter()
        sent = await clearing.send(1)
        await clearing.until_settled(sent["transfer_id"])
        latencies_ms.append((time.perf_counter() - started) * 1000)
    figures = percentiles(latencies_ms)
    console.print(
        f"  {trials} transfers: "
        + ", ".join(f"{name} {value:.0f} ms" for name, value in figures.items())
    )
    at = datetime.now(UTC).isoformat(timespec="seconds")
    series = (Series("request to settled", "ms", tuple(latencies_ms)),)
    return [
        Result(
            "clearing_latency_p99",
            figures["p99"],
            "ms",
            at,
            goal=500,
            better="lower",
            series=series,
        ),
        Result("clearing_latency_p50", figures["p50"], "ms", at, better="lower"),
    ]
