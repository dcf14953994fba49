"""verify_rate and proof_latency_scale: the evidence of a large book, verified and proven.

The book is filled by SQL through the rules of the ledger, logged, signed and written into a bundle
by the time bank's own commands. The baseline of verify_rate is a bare RFC 6962 tree with hashlib
over the same entries, read into memory beforehand: no file, no JSON, no signature. Contender and
baseline take turns.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import zipfile
from hashlib import sha256
from pathlib import Path
from statistics import median

import asyncpg
from rich.console import Console

from copass.bench.ledger import Sizes, now
from copass.bench.ledger_rig import CITY, Book, Rig, open_rig
from copass.bench.results import Result
from copass.bench.taps import BenchError, ratio
from copass_verify.bundle import open_bundle
from copass_verify.verify import verify

# In each round half of the accounts give what the other half gives back in the next one; so there
# is an order in which all of it happened, as there is for what people do.
FILL = """
WITH line AS (
    SELECT account_id, row_number() OVER (ORDER BY account_id) - 1 AS place
    FROM account WHERE city_id = $1
), pair AS MATERIALIZED (
    SELECT uuidv7() AS transfer_id, round, one.account_id AS one, other.account_id AS other,
        CASE round % 2 WHEN 0 THEN 30 ELSE -30 END AS minutes,
        CASE round % 2 WHEN 0 THEN 30 ELSE 0 END AS balance
    FROM generate_series($2::int, $3::int) AS round
    CROSS JOIN line AS one JOIN line AS other ON other.place = one.place + 1
    WHERE one.place % 2 = 0
), new_transfer AS (
    INSERT INTO transfer (transfer_id, city_id, kind, requested_by, posted_at)
    SELECT transfer_id, $1, 'transfer', 'bench', now() FROM pair ORDER BY transfer_id
), new_posting AS (
    INSERT INTO posting (account_id, account_version, transfer_id, city_id, minutes,
        balance_minutes, posted_at)
    SELECT leg.account_id, round + 1, transfer_id, $1, leg.minutes, leg.balance, now()
    FROM pair CROSS JOIN LATERAL (VALUES (one, -minutes, -balance), (other, minutes, balance))
        AS leg (account_id, minutes, balance)
    ORDER BY transfer_id
)
UPDATE account SET version = $3 + 1, posted_at = now() WHERE city_id = $1
"""
ROUNDS_AT_ONCE = 20
FILL_TIMEOUT_S = 600
FEW, MANY = "few", "many"
FEW_ENTRIES = 10_000
PROOFS = 400
PEAK = "import resource, sys; from copass_verify.__main__ import main; code = main(sys.argv[1:]);"
PEAK += " kib = [resource.getrusage(who).ru_maxrss for who in (0, -1)];"
PEAK += " sys.stderr.write(f'{sum(kib) / 1024}'); sys.exit(code)"


async def measure_verify(sizes: Sizes, console: Console) -> list[Result]:
    """On a server of its own, `sizes.entries` of a large book. Raises BenchError and StartError."""
    async with open_rig() as rig:
        books = [
            await fill(rig, FEW, min(FEW_ENTRIES, sizes.entries), sizes, console),
            await fill(rig, MANY, sizes.entries, sizes, console),
        ]
        scale = await measure_proofs(rig, books, sizes, console)
        path = rig.folder / "many.zip"
        await asyncio.to_thread(rig.timebank, books[1].url, "bundle", str(path))
        return [scale, *await asyncio.to_thread(measure_rate, path, sizes, console)]


async def fill(rig: Rig, name: str, entries: int, sizes: Sizes, console: Console) -> Book:
    """A book of so many transfers, all of them in its log, signed."""
    started = time.perf_counter()
    book = await rig.open_book(name, sizes.accounts)
    connection = await asyncpg.connect(book.url, command_timeout=FILL_TIMEOUT_S)
    try:
        # An even number of rounds: all balances are at zero again.
        rounds = -(-entries // sizes.accounts) * 2
        for first in range(0, rounds, ROUNDS_AT_ONCE):
            last = min(first + ROUNDS_AT_ONCE, rounds) - 1
            await connection.execute(FILL, CITY, first, last)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
    await asyncio.to_thread(rig.timebank, book.url, "log-now")
    # As a server that has run for a while: the planner knows the log's size.
    await rig.sql("VACUUM ANALYZE", name)
    console.print(f"  {entries:,} entries logged in {time.perf_counter() - started:.0f} s")
    return book


async def measure_proofs(rig: Rig, books: list[Book], sizes: Sizes, console: Console) -> Result:
    pairs = []
    for number in range(sizes.pairs):
        few, many = [
            median(await asyncio.to_thread(proof_times, rig, book, number)) for book in books
        ]
        pairs.append((many, few))
        console.print(f"  proof: {many * 1000:.2f} ms of many entries, {few * 1000:.2f} ms of few")
    labels = (f"{sizes.entries:,} entries", f"{FEW_ENTRIES:,} entries")
    return ratio("proof_latency_scale", pairs, "s", now(), goal=2.0, better="lower", labels=labels)


def proof_times(rig: Rig, book: Book, seed: int) -> list[float]:
    words = [sys.executable, "-m", "timebank", "log-timing", CITY]
    words += ["--proofs", str(PROOFS), "--seed", str(seed)]
    found: list[float] = json.loads(rig.command(words, rig.environment(book.url)))
    return found


def measure_rate(path: Path, sizes: Sizes, console: Console) -> list[Result]:
    # First: on Linux a process takes over the peak of the one that starts it.
    memory = peak_memory(path)
    with zipfile.ZipFile(path) as archive:
        lines = archive.read(f"cities/{CITY}/entries.jsonl").splitlines()
    alone, both = [], []
    for number in range(sizes.pairs):
        started = time.perf_counter()
        bare_tree(lines)
        bare = len(lines) / (time.perf_counter() - started)
        mine = [len(lines) / verify_time(path, apart=apart) for apart in (False, True)]
        alone.append((mine[0], bare))
        both.append((mine[1], bare))
        console.print(
            f"  verify, pair {number + 1}/{sizes.pairs}: {mine[1]:,.0f} entries/s by two"
            f" processes, {mine[0]:,.0f} by one, against {bare:,.0f} of a bare tree:"
            f" {mine[1] / bare:.2f}"
        )
    labels = ("copass-verify", "bare tree")
    rates = [
        ratio(name, pairs, "entries/s", now(), goal=goal, better="higher", labels=labels)
        for name, pairs, goal in (
            ("verify_rate", both, 0.25),
            ("verify_rate_one_process", alone, None),
        )
    ]
    return [
        *rates,
        Result("verify_entries", len(lines), "entries", now()),
        Result("verify_memory", memory, "MiB", now(), goal=300, better="lower"),
    ]


def bare_tree(entries: list[bytes]) -> bytes:
    """The root of RFC 6962 over entries, as anybody would write it: level by level."""
    level = [sha256(b"\x00" + entry).digest() for entry in entries]
    while len(level) > 1:
        above = [
            sha256(b"\x01" + level[place] + level[place + 1]).digest()
            for place in range(0, len(level) - 1, 2)
        ]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]


def verify_time(path: Path, *, apart: bool) -> float:
    """Seconds, with the start of a second process. Raises BenchError unless all holds."""
    started = time.perf_counter()
    report = verify([open_bundle(path)], apart=apart)
    elapsed = time.perf_counter() - started
    if not report.sound:
        raise BenchError(f"the bundle does not hold: {report.faults[0]}")
    return elapsed


def peak_memory(path: Path) -> float:
    """MiB at most, of both processes together, each at its own peak."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "--quiet", str(path)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise BenchError(f"copass-verify failed: {done.stdout}{done.stderr}")
    return float(done.stderr)
