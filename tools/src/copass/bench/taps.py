"""tap_throughput and tap_latency: the full decision against the handler a user would write.

Contender: the access service of the running network. Baseline: `baseline.py` on the same Valkey.
One uvicorn process each, the same load generator, the same requests, in turns.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from statistics import median

from redis.asyncio import Redis
from rich.console import Console

from copass.bench.load import Load, Presented, closed_loop, tap_requests
from copass.bench.results import Better, Result, Series
from copass.demo_api import Api, new_tap
from copass.demo_data import DemoNetwork
from copass.demo_state import DemoState
from copass.processes import Program, spawn, stop, wait_ready
from copass.servers import unused_port
from copass.simulate import choose_cast
from copass.statistics import percentile

CLIENTS = 8
PEOPLE = 300
WARM_UP_S = 0.5
DRAINED_WITHIN_S = 120.0
GRANTED = b'"grant"'


class BenchError(Exception):
    """The measurement would be worth nothing; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """The running network, as far as a bench needs it."""

    home: Path
    access_url: str
    redis_url: str
    kafka: str  # host:port
    cards: tuple[Presented, ...]


def cards_at_doors(network: DemoNetwork, state: DemoState) -> tuple[Presented, ...]:
    """Members of all cities, each at one door that is open at any hour: all are granted."""
    cast = choose_cast(network, PEOPLE, len(network.cities))
    doors = [door for _place, door in cast.doors]
    return tuple(
        Presented(door.door_id, state.reader_keys[door.door_id], card.uid)
        for (_member, card), door in zip(cast.members, cycle(doors), strict=False)
    )


async def everybody_leaves(api: Api, cards: Sequence[Presented]) -> None:
    """Undoes the entries of a bench, so that no place stays full."""
    for card in cards:
        await api.tap(new_tap(card.door_id, card.uid, "out"), card.reader_key)


@asynccontextmanager
async def baseline_server(target: Target) -> AsyncIterator[str]:
    """The baseline as one uvicorn process, with a document for every card; yields its URL."""
    redis = Redis.from_url(target.redis_url)
    keys = [f"bench:card:{card.uid}" for card in target.cards]
    await redis.mset(dict.fromkeys(keys, "x" * 200))
    port = unused_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "copass.bench.baseline:create_app"]
    command += ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning"]
    program = Program(
        "baseline",
        tuple(command),
        target.home / "logs" / "bench-baseline.log",
        {"BENCH_REDIS_URL": target.redis_url},
    )
    process = spawn(program)
    try:
        await wait_ready(program, process, lambda: port_open(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        await asyncio.to_thread(stop, process, signal.SIGTERM)
        await redis.delete(*keys)
        await redis.aclose()


async def port_open(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()


async def drained(redis_url: str) -> None:
    """Waits until the taps of the round before are in the history: their work is over."""
    redis = Redis.from_url(redis_url)
    try:
        async with asyncio.timeout(DRAINED_WITHIN_S):
            while await redis.xlen("taps") > 0:
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise BenchError("the taps do not get into the history") from None
    finally:
        await redis.aclose()


async def run_round(url: str, cards: Sequence[Presented], clients: int, seconds: float) -> Load:
    """One warm-up, one measurement. Raises BenchError unless every tap was granted."""
    make = tap_requests(cards)
    await closed_loop(url, make, clients=clients, seconds=WARM_UP_S)
    load = await closed_loop(url, make, clients=clients, seconds=seconds, needle=GRANTED)
    if load.needles != len(load.latencies_s):
        raise BenchError(f"not every tap was granted: {load.statuses} {load.samples}")
    return load


async def measure_taps(
    target: Target, *, pairs: int, seconds: float, console: Console
) -> list[Result]:
    """tap_throughput, tap_latency_p50 and tap_latency_p99, each the median of the pairs' ratios."""
    many = await run_pairs(target, CLIENTS, pairs, seconds, console)
    one = await run_pairs(target, 1, pairs, seconds, console)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    rates = [tuple(load.per_second for load in pair) for pair in many]
    results = [
        ratio("tap_throughput", rates, "taps/s", at, goal=1.5, better="higher"),
    ]
    for name, share, goal in (("tap_latency_p50", 0.5, 1.0), ("tap_latency_p99", 0.99, 1.5)):
        times = [tuple(percentile(load.latencies_s, share) * 1000 for load in pair) for pair in one]
        results.append(ratio(name, times, "ms", at, goal=goal, better="lower"))
    return results


async def run_pairs(
    target: Target, clients: int, pairs: int, seconds: float, console: Console
) -> list[tuple[Load, Load]]:
    """(contender, baseline) for each pair; who begins changes from pair to pair."""
    found = []
    async with baseline_server(target) as baseline_url:
        for number in range(pairs):
            loads: dict[str, Load] = {}
            order = (target.access_url, baseline_url)
            for url in order if number % 2 == 0 else reversed(order):
                loads[url] = await run_round(url, target.cards, clients, seconds)
                await drained(target.redis_url)
            pair = (loads[target.access_url], loads[baseline_url])
            console.print(
                f"  {clients} clients, pair {number + 1}/{pairs}: "
                + " against ".join(
                    f"{load.per_second:.0f}/s (p50 {percentile(load.latencies_s, 0.5) * 1000:.2f}"
                    f" ms, p99 {percentile(load.latencies_s, 0.99) * 1000:.2f} ms)"
                    for load in pair
                )
            )
            found.append(pair)
    return found


def ratio(
    name: str,
    pairs: Sequence[tuple[float, ...]],
    unit: str,
    at: str,
    *,
    goal: float | None = None,
    better: Better,
    labels: tuple[str, str] = ("access", "baseline"),
) -> Result:
    contender, baseline = (tuple(pair[n] for pair in pairs) for n in (0, 1))
    return Result(
        name,
        median(mine / theirs for mine, theirs in zip(contender, baseline, strict=True)),
        "ratio",
        at,
        baseline=median(baseline),
        goal=goal,
        better=better,
        series=(Series(labels[0], unit, contender), Series(labels[1], unit, baseline)),
    )
