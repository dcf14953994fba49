"""transfer_throughput, transfer_bulk and ledger_scale: the time bank's ledger against pgbench.

The baseline is the TPC-B script of the pgbench that the PostgreSQL wheel brings, 8 clients, on the
same server with the same settings. Contender and baseline take turns; a ratio is of one turn.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg
from rich.console import Console

from copass.bench.ledger_rig import Book, Rig, open_rig
from copass.bench.load import Load, MakeRequest, closed_loop
from copass.bench.results import Result
from copass.bench.taps import BenchError, ratio

CLIENTS = 32
ACCOUNTS = 1_000
FEW_POSTINGS = 10_000
ENTRIES = 1_000_000
WARM_UP_S = 1.0
Pair = tuple[float, float]
SMALL, SMALL_TEMPLATE, LARGE = "small", "small_template", "large"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. `rows` of an import, `postings` of the large book, `entries` of
    the log that is verified."""

    pairs: int
    seconds: float
    rows: int
    postings: int
    accounts: int = ACCOUNTS
    few_postings: int = FEW_POSTINGS
    entries: int = ENTRIES


async def measure_ledger(sizes: Sizes, console: Console) -> list[Result]:
    """All three, on a server of their own. Raises BenchError and StartError."""
    async with open_rig() as rig:
        book = await rig.open_book("timebank", sizes.accounts)
        return [
            await measure_throughput(rig, book, sizes, console),
            await measure_bulk(rig, book, sizes, console),
            *await measure_scale(rig, sizes, console),
        ]


async def measure_throughput(rig: Rig, book: Book, sizes: Sizes, console: Console) -> Result:
    """One api process, 32 clients that each wait for their answer."""
    found = []
    posted = 0
    async with rig.api(book) as (url, make):
        posted += len((await post(url, make, WARM_UP_S)).latencies_s)
        for number in range(sizes.pairs):
            load = await post(url, make, sizes.seconds)
            posted += len(load.latencies_s)
            found.append((load.per_second, await rig.pgbench(sizes.seconds)))
            say(console, "HTTP", number, sizes, found[-1])
    await expect_transfers(book, posted)
    return of_pairs("transfer_throughput", found, goal=1.0)


async def measure_bulk(rig: Rig, book: Book, sizes: Sizes, console: Console) -> Result:
    """`python -m timebank import`, a file at a time."""
    found = []
    for number in range(sizes.pairs):
        rate = await rig.import_rate(book, sizes.rows)
        found.append((rate, await rig.pgbench(sizes.seconds)))
        say(console, "import", number, sizes, found[-1])
    return of_pairs("transfer_bulk", found, goal=3.0)


async def measure_scale(rig: Rig, sizes: Sizes, console: Console) -> list[Result]:
    """A book of millions of postings and, in turns, one of ten thousand: over HTTP, as members
    give, and by import, whose ids lie anywhere in the indexes instead of at their end."""
    started = time.perf_counter()
    large = await rig.open_book(LARGE, sizes.accounts)
    postings = await rig.fill(large, sizes.postings)
    console.print(f"  {postings:,} postings in {time.perf_counter() - started:.0f} s")
    template = await rig.open_book(SMALL_TEMPLATE, sizes.accounts)
    few = await rig.fill(template, sizes.few_postings)
    small = Book(rig.url_of(SMALL), template.owners)

    async def over_http(book: Book) -> float:
        async with rig.api(book) as (url, make):
            await post(url, make, WARM_UP_S)
            return (await post(url, make, sizes.seconds)).per_second

    async def by_import(book: Book) -> float:
        return await rig.import_rate(book, sizes.rows)

    async def in_turns(name: str, rate: Callable[[Book], Awaitable[float]]) -> list[Pair]:
        found = []
        for number in range(sizes.pairs):
            # The small book stays small: each turn finds it as it was.
            await rig.sql(f"DROP DATABASE IF EXISTS {SMALL}")
            await rig.sql(f"CREATE DATABASE {SMALL} TEMPLATE {SMALL_TEMPLATE}")
            order = (large, small) if number % 2 == 0 else (small, large)
            rates = {book.url: await rate(book) for book in order}
            found.append((rates[large.url], rates[small.url]))
            console.print(
                f"  {name}, pair {number + 1}/{sizes.pairs}: {found[-1][0]:.0f}/s with"
                f" {postings:,} postings against {found[-1][1]:.0f}/s with {few:,}"
            )
        return found

    labels = (f"{postings:,} postings", f"{few:,} postings")
    by_way = {"ledger_scale": over_http, "ledger_scale_import": by_import}
    results = [
        ratio(
            name, await in_turns(name, rate), "transfers/s", now(), better="higher", labels=labels
        )
        for name, rate in by_way.items()
    ]
    scale = replace(results[0], goal=0.9)
    return [scale, *results[1:], Result("ledger_scale_postings", postings, "postings", now())]


async def post(url: str, make: MakeRequest, seconds: float) -> Load:
    """Transfers as fast as they are answered. Raises BenchError unless every one was posted."""
    load = await closed_loop(url, make, clients=CLIENTS, seconds=seconds)
    if set(load.statuses) != {201}:
        raise BenchError(f"not every transfer was posted: {load.statuses} {load.samples}")
    return load


async def expect_transfers(book: Book, posted: int) -> None:
    """Every answer stands for a transfer that is there. Raises BenchError."""
    connection = await asyncpg.connect(book.url)
    try:
        found = await connection.fetchval("SELECT count(*) FROM transfer")
    finally:
        await connection.close()
    if found != posted:
        raise BenchError(f"{posted} transfers were answered, {found} are in the book")


def say(console: Console, what: str, number: int, sizes: Sizes, pair: tuple[float, float]) -> None:
    console.print(
        f"  {what}, pair {number + 1}/{sizes.pairs}: {pair[0]:.0f} transfers/s against"
        f" {pair[1]:.0f} of pgbench: {pair[0] / pair[1]:.2f}"
    )


def of_pairs(name: str, pairs: list[tuple[float, float]], *, goal: float) -> Result:
    labels = ("timebank", "pgbench")
    return ratio(name, pairs, "transfers/s", now(), goal=goal, better="higher", labels=labels)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
