"""Takes a file in: batches of rows, one transaction each, in the order of the file.

Every transfer has the id that its source and row give it, so a file is taken in once however often
it is sent: after a crash, or with more rows at its end, send it again. Rows are posted in order,
because the floors hold after each of them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from common.clock import Clock
from common.db import Pool
from timebank.domain import Actor, Leg, Outcome, Posted, Rejected, TransferRequest
from timebank.importing.layouts import (
    Fault,
    Layout,
    Row,
    Unit,
    read_csv,
    read_json_lines,
    to_rows,
    transfer_id,
)
from timebank.service import Ledger, Submission

BATCH = 500
CLOCKS_DIFFER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Source:
    """What the rows come from, and which of our accounts its accounts are."""

    name: str
    city_id: str
    layout: Layout
    unit: Unit
    accounts: Mapping[str, UUID]

    @property
    def actor(self) -> Actor:
        """Who asks: whoever may run this has the database, so may do what a steward may."""
        return Actor(id=f"import:{self.name}", city_id=self.city_id, steward=True)


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one row: posted, repeated (it was there) or rejected, with the reason."""

    line: int
    id: str
    status: str
    transfer_id: UUID | None = None
    code: str | None = None
    detail: str | None = None


async def import_rows(
    pool: Pool,
    clock: Clock,
    source: Source,
    rows: Iterable[Row | Fault],
    report: Callable[[list[Line]], None],
) -> Counter[str]:
    """Post rows in batches; `report` hears of each batch once it is committed. How many of what.

    Raises what the database raises when it stays away; what was reported is committed.
    """
    ledger = Ledger(pool, clock)
    counts: Counter[str] = Counter()
    for batch in batches(rows):
        asked = [to_request(row, source, clock) for row in batch]
        requests = [item for item in asked if isinstance(item, TransferRequest)]
        outcomes = iter(
            await ledger.post_batch([Submission(request, None) for request in requests])
            if requests
            else ()
        )
        lines = [
            to_line(row, next(outcomes) if isinstance(item, TransferRequest) else item)
            for row, item in zip(batch, asked, strict=True)
        ]
        report(lines)
        counts.update(line.status for line in lines)
    return counts


def batches(rows: Iterable[Row | Fault]) -> Iterator[list[Row | Fault]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def to_request(row: Row | Fault, source: Source, clock: Clock) -> TransferRequest | Fault:
    if isinstance(row, Fault):
        return row
    payer, payee = find(row.payer, source), find(row.payee, source)
    if payer is None or payee is None:
        unknown = row.payer if payer is None else row.payee
        return Fault(row.line, row.id, "account_unknown", f"No account is known for {unknown!r}.")
    if row.occurred_at is not None and row.occurred_at > clock() + CLOCKS_DIFFER:
        return Fault(row.line, row.id, "in_the_future", "This has not happened yet.")
    return TransferRequest(
        transfer_id=transfer_id(source.name, row.id),
        own_id=True,
        key=None,
        actor=source.actor,
        legs=(Leg(payer, -row.minutes), Leg(payee, row.minutes)),
        memo=row.memo,
        occurred_at=row.occurred_at,
    )


def find(name: str, source: Source) -> UUID | None:
    """The account that a name of the source stands for; an id of ours stands for itself."""
    known = source.accounts.get(name)
    if known is not None:
        return known
    try:
        return UUID(name)
    except ValueError:
        return None


def to_line(row: Row | Fault, outcome: Outcome | Fault) -> Line:
    if isinstance(outcome, Fault | Rejected):
        return Line(row.line, row.id, "rejected", None, outcome.code, outcome.detail)
    status = "posted" if isinstance(outcome, Posted) else "repeated"
    return Line(row.line, row.id, status, outcome.transfer.id)


async def import_file(
    pool: Pool,
    clock: Clock,
    source: Source,
    path: Path,
    report_path: Path,
    progress: Callable[[int], Any],
) -> Counter[str]:
    """Take a file in, and write what became of each row to `report_path`, a JSON object a line.

    `progress` is given how many rows were done since it was last called. Raises LayoutError when
    the file is not of its layout; what was reported until then is done.
    """
    with ExitStack() as files:
        text = files.enter_context(path.open(encoding="utf-8-sig", newline=""))
        out = files.enter_context(report_path.open("wb"))
        is_json = path.suffix in (".jsonl", ".ndjson")
        records = read_json_lines(text) if is_json else read_csv(text, source.layout)

        def report(lines: list[Line]) -> None:
            for line in lines:
                out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            out.flush()
            progress(len(lines))

        return await import_rows(
            pool, clock, source, to_rows(records, source.layout, source.unit), report
        )
