"""Takes a file in: batches of rows, one transaction each, in the order of the file.

Every transfer has the id that its source and row give it, so a file is taken in once however often
it is sent: after a crash, or with more rows at its end, send it again. Rows are posted in order,
because the floors hold after each of them.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from common.clock import Clock
from common.db import Pool
from common.ids import row_id
from timebank.domain import (
    Account,
    Actor,
    Books,
    Leg,
    Outcome,
    Posted,
    Rejected,
    TransferRequest,
    decide_all,
)
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
from timebank.service import Foreseen, Ledger, Submission

# Large, so that an account that many rows touch is written once for all of them; small enough that
# whoever else wants it waits for a fifth of a second.
BATCH = 2_000
SLICE = 25  # rows read before others get their turn
NAMES_KEPT = 100_000
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
    transfer_id: str | None = None
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
    asked = ask_for(rows, source, clock)
    seen: dict[UUID, Account] = {}  # as the batches that are committed left them
    batch, foreseen = await collect(asked), None
    while batch:
        # Read, and decided over what this batch should leave, while the database works on it.
        following = asyncio.create_task(prepare(asked, foreseen, clock))
        try:
            outcomes = await post(ledger, batch, foreseen)
            lines = [to_line(row, done) for (row, _), done in zip(batch, outcomes, strict=True)]
            report(lines)
            counts.update(line.status for line in lines)
            seen.update(
                (account.id, account)
                for done in outcomes
                if isinstance(done, Posted)
                for account in done.accounts
            )
            came_true = foreseen is not None and foreseen.outcomes == tuple(
                done for done in outcomes if not isinstance(done, Fault)
            )
            batch, foreseen = await following
            if not came_true:
                foreseen = await foresee(batch, dict(seen), clock)
        finally:
            following.cancel()
    return counts


Asked = tuple[Row | Fault, TransferRequest | Fault]


async def prepare(
    asked: Iterator[Asked], before: Foreseen | None, clock: Clock
) -> tuple[list[Asked], Foreseen | None]:
    """The next rows of a batch, and what they come to if the batch before them is as foreseen."""
    batch = await collect(asked)
    return batch, await foresee(batch, before.left, clock) if before is not None else None


async def foresee(
    batch: Sequence[Asked], accounts: dict[UUID, Account], clock: Clock
) -> Foreseen | None:
    """What a batch comes to over `accounts`, which it leaves as they will be then; None when it
    needs another account. The ledger decides again unless it finds them just so."""
    requests = requests_of(batch)
    ids = {leg.account_id for request in requests for leg in request.legs}
    if not ids <= accounts.keys():
        return None
    found = {account_id: accounts[account_id] for account_id in ids}
    books = Books(accounts=accounts)
    outcomes: list[Outcome] = []
    for first in range(0, len(requests), SLICE):
        outcomes += decide_all(requests[first : first + SLICE], books, clock())
        await asyncio.sleep(0)
    return Foreseen(found, tuple(outcomes), left=books.accounts)


def requests_of(asked: Sequence[Asked]) -> list[TransferRequest]:
    return [item for _, item in asked if isinstance(item, TransferRequest)]


async def collect(asked: Iterator[Asked]) -> list[Asked]:
    """The next rows of a batch, giving way often, so that nobody waits for their being read."""
    batch: list[Asked] = []
    while slice_ := list(islice(asked, min(SLICE, BATCH - len(batch)))):
        batch += slice_
        await asyncio.sleep(0)
    return batch


async def post(
    ledger: Ledger, batch: Sequence[Asked], foreseen: Foreseen | None
) -> list[Outcome | Fault]:
    """What became of each row of a batch, which is committed then."""
    submissions = [Submission(request, None) for request in requests_of(batch)]
    outcomes = iter(await ledger.post_batch(submissions, foreseen) if submissions else ())
    return [next(outcomes) if isinstance(item, TransferRequest) else item for _, item in batch]


def ask_for(rows: Iterable[Row | Fault], source: Source, clock: Clock) -> Iterator[Asked]:
    """Each row with the transfer that it asks for, or why it asks for none."""
    actor = source.actor
    find = lru_cache(maxsize=NAMES_KEPT)(partial(find_account, source=source))
    for row in rows:
        yield row, to_request(row, source.name, actor, find, clock)


def to_request(
    row: Row | Fault,
    source_name: str,
    actor: Actor,
    find: Callable[[str], UUID | None],
    clock: Clock,
) -> TransferRequest | Fault:
    if isinstance(row, Fault):
        return row
    payer, payee = find(row.payer), find(row.payee)
    if payer is None or payee is None:
        unknown = row.payer if payer is None else row.payee
        return Fault(row.line, row.id, "account_unknown", f"No account is known for {unknown!r}.")
    if row.occurred_at is not None and row.occurred_at > clock() + CLOCKS_DIFFER:
        return Fault(row.line, row.id, "in_the_future", "This has not happened yet.")
    return TransferRequest(
        transfer_id=transfer_id(source_name, row.id),
        own_id=True,
        key=None,
        actor=actor,
        legs=(Leg(payer, -row.minutes), Leg(payee, row.minutes)),
        memo=row.memo,
        occurred_at=row.occurred_at,
    )


def find_account(name: str, *, source: Source) -> UUID | None:
    """The account that a name of the source stands for; an id of ours stands for itself."""
    try:
        account_id = source.accounts.get(name) or UUID(name)
    except ValueError:
        return None
    return row_id(account_id.bytes)


def to_line(row: Row | Fault, outcome: Outcome | Fault) -> Line:
    if isinstance(outcome, Fault | Rejected):
        return Line(row.line, row.id, "rejected", None, outcome.code, outcome.detail)
    status = "posted" if isinstance(outcome, Posted) else "repeated"
    return Line(row.line, row.id, status, str(outcome.transfer.id))


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
