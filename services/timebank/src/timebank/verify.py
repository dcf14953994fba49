"""Recomputes every balance from the postings, and says where the books differ."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from common import db
from timebank import store

SHOWN_MAX = 20


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
    def sound(self) -> bool:
        return self.sum_balances == 0 and self.sum_postings == 0 and not self.differences


async def verify_books(dsn: str) -> list[CityReport]:
    """Read all books in one snapshot, so that transfers may go on meanwhile.

    It reads every posting: minutes for tens of millions of them, without holding anybody up.
    """
    connection = await db.connect(dsn, name="timebank-verify")
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            totals = await store.book_totals(connection)
            transfers = await store.verify_transfers(connection)
            accounts = await store.verify_accounts(connection)
            holds = await store.verify_holds(connection)
    finally:
        await connection.close(timeout=5)
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
                for found in (transfers, accounts, holds)
                for difference in found.get(row["city_id"], [])
            ),
        )
        for row in totals
    ]


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
