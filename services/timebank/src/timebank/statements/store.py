"""What an account was at an instant, and the lines of its statement."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from common.db import Conn
from timebank.domain import Posting
from timebank.store import Row


@dataclass(frozen=True, slots=True)
class StatementLine:
    """A posting as its account's statement shows it.

    `occurred_at`: when it happened elsewhere, of what was imported.
    """

    posting: Posting
    # None: not for the reader.
    transfer_id: UUID | None
    kind: str
    reverses: UUID | None
    memo: str | None
    posted_at: datetime
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """An account after its first `version` postings."""

    version: int
    balance_minutes: int


NOTHING = Moment(0, 0)


async def find_before(conn: Conn, account_id: UUID, before: datetime) -> Moment:
    """The account as the postings earlier than `before` left it.

    Along an account time never runs backwards, so this halves the range of versions until it is
    there: some twenty look-ups by primary key for a million postings.
    """
    row = await conn.fetchrow(
        """
        WITH RECURSIVE search (low, high) AS (
            SELECT 0::bigint, version FROM account WHERE account_id = $1
            UNION ALL
            SELECT
                CASE WHEN p.posted_at < $2 THEN p.account_version ELSE s.low END,
                CASE WHEN p.posted_at < $2 THEN s.high ELSE p.account_version - 1 END
            FROM search s
            JOIN posting p ON p.account_id = $1 AND p.account_version = (s.low + s.high + 1) / 2
            WHERE s.low < s.high
        )
        SELECT s.low AS version, coalesce(p.balance_minutes, 0) AS balance_minutes
        FROM search s
        LEFT JOIN posting p ON p.account_id = $1 AND p.account_version = s.low
        WHERE s.low = s.high
        """,
        account_id,
        before,
    )
    return Moment(**row) if row else NOTHING


SELECT_LINE = (
    "SELECT p.account_id, p.minutes, p.account_version, p.balance_minutes, p.transfer_id,"
    " t.kind, t.reverses, m.memo, p.posted_at, t.occurred_at"
    " FROM posting p JOIN transfer t USING (transfer_id)"
    " LEFT JOIN transfer_memo m USING (transfer_id)"
    " WHERE p.account_id = $1 AND p.account_version > $2 AND p.account_version <= $3"
)


def to_line(row: Row) -> StatementLine:
    return StatementLine(
        posting=Posting(
            row["account_id"], row["minutes"], row["account_version"], row["balance_minutes"]
        ),
        transfer_id=row["transfer_id"],
        kind=row["kind"],
        reverses=row["reverses"],
        memo=row["memo"],
        posted_at=row["posted_at"],
        occurred_at=row["occurred_at"],
    )


async def list_between(
    conn: Conn, account_id: UUID, *, after: int, up_to: int
) -> list[StatementLine]:
    """The postings of an account with numbers after `after` up to `up_to`, the oldest first."""
    rows = await conn.fetch(f"{SELECT_LINE} ORDER BY p.account_version", account_id, after, up_to)
    return [to_line(row) for row in rows]


async def list_newest(
    conn: Conn, account_id: UUID, *, after: int, up_to: int, limit: int
) -> list[StatementLine]:
    """At most `limit` of the same, the newest first."""
    rows = await conn.fetch(
        f"{SELECT_LINE} ORDER BY p.account_version DESC LIMIT $4", account_id, after, up_to, limit
    )
    return [to_line(row) for row in rows]
