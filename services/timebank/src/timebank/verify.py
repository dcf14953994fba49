"""Recomputes every balance from the postings, and says where the books differ.

By command, and in the worker by schedule: a difference is logged, counted, and told as an event.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Gauge
from rich.console import Console
from rich.table import Table

from common import db, outbox
from common.clock import Clock
from common.db import Conn, Pool
from common.logging import get_logger
from timebank import events, store
from timebank.contributions import store as contributions

SHOWN_MAX = 20
# One check at a time, whatever the number of workers.
CHECK_LOCK = 7_203_101

BOOK_DIFFERENCES = Gauge(
    "timebank_book_differences", "What the last check found wrong with a city's book", ["city"]
)
BOOKS_CHECKED_AT = Gauge(
    "timebank_books_checked_timestamp_seconds", "When the books were last checked by this process"
)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CityReport:
    """One city's book. `sum_balances` and `sum_postings` are exact, in minutes."""

    city_id: str
    accounts: int
    transfers: int
    postings: int
    sum_balances: int
    sum_postings: int
    differences: tuple[str, ...]

    @property
    def wrong(self) -> tuple[str, ...]:
        """All that is wrong, in words."""
        sums = (("balances", self.sum_balances), ("postings", self.sum_postings))
        return (
            *(f"the {name} sum to {minutes}, not to 0" for name, minutes in sums if minutes),
            *self.differences,
        )

    @property
    def sound(self) -> bool:
        return not self.wrong


async def verify_books(dsn: str) -> list[CityReport]:
    """Read all books in one snapshot, so that transfers may go on meanwhile.

    It reads every posting: minutes for tens of millions of them, without holding anybody up.
    """
    connection = await db.connect(dsn, name="timebank-verify")
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await reports_of(connection)
    finally:
        await connection.close(timeout=5)


async def reports_of(connection: Conn) -> list[CityReport]:
    """All books, as one transaction sees them."""
    totals = await store.book_totals(connection)
    transfers = await store.verify_transfers(connection)
    accounts = await store.verify_accounts(connection)
    holds = await store.verify_holds(connection)
    given = await contributions.verify_contributions(connection)
    return [
        CityReport(
            city_id=row["city_id"],
            accounts=row["accounts"],
            transfers=row["transfers"],
            postings=row["postings"],
            sum_balances=int(row["balance"]),
            sum_postings=int(row["minutes"]),
            differences=tuple(
                difference
                for found in (transfers, accounts, holds, given)
                for difference in found.get(row["city_id"], [])
            ),
        )
        for row in totals
    ]


async def check_books(dsn: str, pool: Pool, clock: Clock) -> list[CityReport] | None:
    """Check all books and report what differs; None when another worker is at it."""
    connection = await db.connect(dsn, name="timebank-check")
    try:
        # On a connection of its own, which gives the lock back even when this process dies.
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", CHECK_LOCK):
            return None
        reports = await verify_books(dsn)
        async with pool.acquire() as conn, conn.transaction():
            await tell(conn, reports, clock)
        return reports
    finally:
        await connection.close(timeout=5)


async def tell(conn: Conn, reports: Sequence[CityReport], clock: Clock) -> None:
    """Set the metrics; log and publish each book that differs."""
    now = clock()
    BOOKS_CHECKED_AT.set(now.timestamp())
    for report in reports:
        BOOK_DIFFERENCES.labels(report.city_id).set(len(report.wrong))
        if report.sound:
            continue
        log.error(
            "book_differs",
            city=report.city_id,
            differences=len(report.wrong),
            first=report.wrong[:SHOWN_MAX],
        )
        await outbox.add(
            conn,
            topic=events.BOOKS,
            key=report.city_id,
            type=events.BOOK_DIFFERS,
            data=events.book_differs(
                city_id=report.city_id,
                checked_at=now,
                differences=len(report.wrong),
                first=report.wrong[:SHOWN_MAX],
            ),
            now=now,
        )


async def keep_checking(dsn: str, pool: Pool, clock: Clock, every_minutes: int) -> None:
    """The worker's task: check at once, then `every_minutes`; 0 is never."""
    while every_minutes > 0:
        reports = await check_books(dsn, pool, clock)
        if reports is not None:
            sound = sum(report.sound for report in reports)
            log.info("books_checked", books=len(reports), sound=sound)
        await asyncio.sleep(every_minutes * 60)
    await asyncio.Event().wait()


def show(reports: list[CityReport], console: Console) -> None:
    """A table of the cities, and below it the first differences of each."""
    table = Table(title="Books")
    for name in ("city", "accounts", "transfers", "postings", "sum of balances", "sum of postings"):
        table.add_column(name, justify="left" if name == "city" else "right")
    table.add_column("")
    for report in reports:
        table.add_row(
            report.city_id,
            *(
                f"{number:,}"
                for number in (
                    report.accounts,
                    report.transfers,
                    report.postings,
                    report.sum_balances,
                    report.sum_postings,
                )
            ),
            "[green]sound[/green]" if report.sound else "[red]differs[/red]",
        )
    console.print(table)
    for report in reports:
        for difference in report.differences[:SHOWN_MAX]:
            console.print(f"[red]{report.city_id}[/red] {difference}", soft_wrap=True)
        more = len(report.differences) - SHOWN_MAX
        if more > 0:
            console.print(f"[red]{report.city_id}[/red] and {more} more")
