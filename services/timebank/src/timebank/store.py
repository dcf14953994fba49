"""All SQL of the time bank: one function per question, the connection first."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.domain import Account, AccountKind, Posting, Transfer

Row = asyncpg.Record


@dataclass(frozen=True, slots=True)
class Member:
    """A member as identity last told of them."""

    member_id: UUID
    city_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Standing:
    member_id: UUID
    city_id: str
    standing: str
    version: int


@dataclass(frozen=True, slots=True)
class Book:
    """A city's book in numbers. `sum_minutes` is 0, or something is very wrong."""

    city_id: str
    status: str
    accounts: int
    transfers: int
    sum_minutes: int


# What time does to a city, and what it says by itself, happens where its book is kept.
HERE = "city_id NOT IN (SELECT city_id FROM book WHERE place <> 'here')"

SELECT_ACCOUNT = (
    "SELECT account_id, city_id, kind, owner_id, status, floor_minutes, balance_minutes, version,"
    " ceiling_minutes, held_minutes, posted_at FROM account"
)


def to_account(row: Row) -> Account:
    return Account(
        id=row["account_id"],
        city_id=row["city_id"],
        kind=row["kind"],
        owner_id=row["owner_id"],
        open=row["status"] == "open",
        floor_minutes=row["floor_minutes"],
        balance_minutes=row["balance_minutes"],
        version=row["version"],
        ceiling_minutes=row["ceiling_minutes"],
        held_minutes=row["held_minutes"],
        posted_at=row["posted_at"],
    )


# ── Posting ─────────────────────────────────────────────────────────────────────────────────────


async def lock_accounts(conn: Conn, ids: Collection[UUID]) -> dict[UUID, Account]:
    """The accounts that exist among `ids`, locked until the transaction ends.

    Locked in id order, so that two transactions never wait for each other.
    """
    # NO KEY: a posting of another transaction may refer to the account meanwhile.
    rows = await conn.fetch(
        f"{SELECT_ACCOUNT} WHERE account_id = ANY($1::uuid[])"
        " ORDER BY account_id FOR NO KEY UPDATE",
        list(ids),
    )
    return {row["account_id"]: to_account(row) for row in rows}


SELECT_TRANSFER = """
    SELECT t.transfer_id, t.city_id, t.kind, t.reverses, t.requested_by, t.posted_at, t.occurred_at,
        m.memo, m.transfer_id IS NOT NULL AND m.memo IS NULL AS memo_erased, p.postings
    FROM transfer t
    LEFT JOIN transfer_memo m USING (transfer_id)
    CROSS JOIN LATERAL (
        SELECT array_agg(
            (p.account_id, p.minutes, p.account_version, p.balance_minutes, p.left_minutes)
            ORDER BY p.minutes, p.account_id
        ) AS postings
        FROM posting p WHERE p.transfer_id = t.transfer_id
    ) p
"""


def to_transfer(row: Row) -> Transfer:
    return Transfer(
        id=row["transfer_id"],
        city_id=row["city_id"],
        kind=row["kind"],
        reverses=row["reverses"],
        requested_by=row["requested_by"],
        posted_at=row["posted_at"],
        memo=row["memo"],
        postings=tuple(Posting(*item) for item in row["postings"]),
        memo_erased=row["memo_erased"],
        occurred_at=row["occurred_at"],
    )


async def find_transfer(conn: Conn, transfer_id: UUID) -> Transfer | None:
    row = await conn.fetchrow(f"{SELECT_TRANSFER} WHERE t.transfer_id = $1", transfer_id)
    return to_transfer(row) if row else None


async def find_done_before(
    conn: Conn,
    *,
    ids: Sequence[UUID],
    keys: Sequence[tuple[str, str]],
    reverses: Sequence[UUID],
) -> tuple[list[Transfer], dict[tuple[str, str], UUID]]:
    """What is known of these requests: the transfers that have one of the ids, were the answer to
    one of the keys (who asked, key), or take back one of `reverses`; and the keys' transfers.

    To be asked after the accounts are locked: a statement sees what was committed before it began.
    """
    # The keys alone first: nearly always there are none, and nothing more to ask.
    rows = await conn.fetch(
        "SELECT requested_by, key, transfer_id FROM transfer_key"
        " JOIN unnest($1::text[], $2::text[]) AS asked (requested_by, key)"
        " USING (requested_by, key)"
        " UNION ALL SELECT NULL, NULL, transfer_id FROM transfer"
        " WHERE transfer_id = ANY($3::uuid[])"
        " UNION ALL SELECT NULL, NULL, transfer_id FROM transfer WHERE reverses = ANY($4::uuid[])",
        [requested_by for requested_by, _ in keys],
        [key for _, key in keys],
        ids,
        reverses,
    )
    if not rows:
        return [], {}
    found = await conn.fetch(
        f"{SELECT_TRANSFER} WHERE t.transfer_id = ANY($1::uuid[])",
        list({row["transfer_id"] for row in rows}),
    )
    by_key = {(row["requested_by"], row["key"]): row["transfer_id"] for row in rows if row["key"]}
    return [to_transfer(row) for row in found], by_key


@dataclass(frozen=True, slots=True)
class KeyUsed:
    """An Idempotency-Key and the transfer that answered it."""

    requested_by: str
    key: str
    transfer_id: UUID


async def save_transfers(
    conn: Conn,
    *,
    transfers: Sequence[Transfer],
    accounts: Sequence[Account],
    keys: Sequence[KeyUsed],
    now: datetime,
) -> None:
    """Write transfers, the accounts as they leave them, and the keys that they answer.

    One statement, one round trip. Raises asyncpg.IntegrityConstraintViolationError when a rule of
    the database does not hold, at once or when the transaction commits.
    """
    memos = [(transfer.id, transfer.memo) for transfer in transfers if transfer.memo]
    lines = [(transfer, posting) for transfer in transfers for posting in transfer.postings]
    await conn.execute(
        """
        WITH new_transfer AS (
            INSERT INTO transfer (transfer_id, city_id, kind, reverses, requested_by, posted_at,
                occurred_at)
            SELECT * FROM unnest(
                $1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::timestamptz[],
                $25::timestamptz[]
            )
        ), new_posting AS (
            INSERT INTO posting (transfer_id, city_id, posted_at, account_id, minutes,
                account_version, balance_minutes, left_minutes)
            SELECT * FROM unnest(
                $7::uuid[], $8::text[], $9::timestamptz[], $10::uuid[], $11::bigint[],
                $12::bigint[], $13::bigint[], $23::bigint[]
            )
        ), new_memo AS (
            INSERT INTO transfer_memo (transfer_id, memo)
            SELECT * FROM unnest($14::uuid[], $15::text[])
        ), new_key AS (
            INSERT INTO transfer_key (requested_by, key, transfer_id, created_at)
            SELECT *, $19::timestamptz FROM unnest($16::text[], $17::text[], $18::uuid[])
        )
        UPDATE account SET balance_minutes = new.balance_minutes, version = new.version,
            posted_at = new.posted_at
        FROM unnest($20::uuid[], $21::bigint[], $22::bigint[], $24::timestamptz[])
            AS new (account_id, balance_minutes, version, posted_at)
        WHERE account.account_id = new.account_id
        """,
        [transfer.id for transfer in transfers],
        [transfer.city_id for transfer in transfers],
        [transfer.kind for transfer in transfers],
        [transfer.reverses for transfer in transfers],
        [transfer.requested_by for transfer in transfers],
        [transfer.posted_at for transfer in transfers],
        [transfer.id for transfer, _ in lines],
        [transfer.city_id for transfer, _ in lines],
        [transfer.posted_at for transfer, _ in lines],
        [posting.account_id for _, posting in lines],
        [posting.minutes for _, posting in lines],
        [posting.account_version for _, posting in lines],
        [posting.balance_minutes for _, posting in lines],
        [transfer_id for transfer_id, _ in memos],
        [memo for _, memo in memos],
        [used.requested_by for used in keys],
        [used.key for used in keys],
        [used.transfer_id for used in keys],
        now,
        [account.id for account in accounts],
        [account.balance_minutes for account in accounts],
        [account.version for account in accounts],
        [posting.left_minutes for _, posting in lines],
        [account.posted_at for account in accounts],
        [transfer.occurred_at for transfer in transfers],
    )


# ── Books, members, standings ───────────────────────────────────────────────────────────────────


async def open_book(conn: Conn, city_id: str, now: datetime) -> bool:
    """Open a city's book. False when it is open already, also by a transaction just ended; and when
    it has moved to another time bank."""
    opened = await conn.fetchval(
        "INSERT INTO book (city_id, status, city_version, opened_at) VALUES ($1, 'active', 0, $2)"
        " ON CONFLICT (city_id) DO UPDATE SET place = 'here', opened_at = EXCLUDED.opened_at"
        "  WHERE book.place = 'elsewhere' RETURNING true",
        city_id,
        now,
    )
    return opened is True


async def has_book(conn: Conn, city_id: str) -> bool:
    """Whether the city's book is kept here, and has not moved to another time bank."""
    found = await conn.fetchval(
        "SELECT true FROM book WHERE city_id = $1 AND place = 'here'", city_id
    )
    return found is True


async def is_away(conn: Conn, city_id: str) -> bool:
    """Whether the city's book was here, and moves or has moved to another time bank."""
    found = await conn.fetchval(
        "SELECT true FROM book WHERE city_id = $1 AND place IN ('moving', 'moved')", city_id
    )
    return found is True


async def save_city(conn: Conn, *, city_id: str, status: str, timezone: str, version: int) -> None:
    """Keep a city's state, unless a newer one is known."""
    await conn.execute(
        "UPDATE book SET status = $2, city_version = $3, timezone = $4"
        " WHERE city_id = $1 AND city_version < $3",
        city_id,
        status,
        version,
        timezone,
    )


async def city_today(conn: Conn, city_id: str, now: datetime) -> date:
    """The day that it is in the city."""
    today: date = await conn.fetchval(
        "SELECT ($2::timestamptz AT TIME ZONE timezone)::date FROM book WHERE city_id = $1",
        city_id,
        now,
    )
    return today


async def find_member(conn: Conn, member_id: UUID) -> Member | None:
    row = await conn.fetchrow(
        "SELECT member_id, city_id, status FROM member WHERE member_id = $1", member_id
    )
    return Member(**row) if row else None


async def save_member(
    conn: Conn, *, member_id: UUID, city_id: str, status: str, version: int
) -> bool:
    """Keep a member's state and lock it. False when this version or a newer one is known."""
    saved = await conn.fetchval(
        "INSERT INTO member (member_id, city_id, status, version) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (member_id) DO UPDATE"
        " SET city_id = EXCLUDED.city_id, status = EXCLUDED.status, version = EXCLUDED.version"
        " WHERE member.version < EXCLUDED.version RETURNING true",
        member_id,
        city_id,
        status,
        version,
    )
    return saved is True


async def open_account(
    conn: Conn,
    *,
    account_id: UUID,
    city_id: str,
    kind: AccountKind,
    owner_id: UUID | None,
    floor_minutes: int | None,
    ceiling_minutes: int | None = None,
    peer_city_id: str | None = None,
    now: datetime,
) -> bool:
    """Open an account. False, and nothing done, when the id or the owner has one already."""
    opened = await conn.fetchval(
        "INSERT INTO account (account_id, city_id, kind, owner_id, floor_minutes, opened_at,"
        " ceiling_minutes, peer_city_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        " ON CONFLICT DO NOTHING RETURNING true",
        account_id,
        city_id,
        kind,
        owner_id,
        floor_minutes,
        now,
        ceiling_minutes,
        peer_city_id,
    )
    return opened is True


async def save_limits(conn: Conn, account: Account, *, set_by: str, now: datetime) -> int:
    """Write an account's limits, and who set them; the caller holds its lock.

    Returns the new version of what is told of the account.
    """
    version: int = await conn.fetchval(
        "WITH entry AS (INSERT INTO account_limit"
        "  (account_id, number, floor_minutes, ceiling_minutes, set_by, set_at)"
        "  SELECT $1, coalesce(max(number), 0) + 1, $2, $3, $4, $5 FROM account_limit"
        "  WHERE account_id = $1)"
        " UPDATE account SET floor_minutes = $2, ceiling_minutes = $3,"
        "  state_version = state_version + 1 WHERE account_id = $1 RETURNING state_version",
        account.id,
        account.floor_minutes,
        account.ceiling_minutes,
        set_by,
        now,
    )
    return version


async def member_floor(conn: Conn, city_id: str) -> int:
    """The floor that a city gives to new member accounts, in minutes."""
    floor: int = await conn.fetchval(
        "SELECT member_floor_minutes FROM book WHERE city_id = $1", city_id
    )
    return floor


async def close_accounts_of(conn: Conn, owner_id: UUID) -> list[tuple[Account, int]]:
    """Close the accounts of an owner: each as it is then, and the version of what is told of it.

    Balances stay: they are the other side of others' minutes.
    """
    rows = await conn.fetch(
        "UPDATE account SET status = 'closed', state_version = state_version + 1"
        " WHERE account_id IN ("
        " SELECT account_id FROM account WHERE owner_id = $1 AND status = 'open'"
        " ORDER BY account_id FOR NO KEY UPDATE)"
        " RETURNING *",
        owner_id,
    )
    return [(to_account(row), row["state_version"]) for row in rows]


async def find_standing(conn: Conn, member_id: UUID) -> Standing | None:
    row = await conn.fetchrow(
        "SELECT member_id, city_id, standing, version FROM standing WHERE member_id = $1",
        member_id,
    )
    return Standing(**row) if row else None


async def save_standing(conn: Conn, standing: Standing) -> None:
    """Write a standing; the caller holds the lock of its member."""
    await conn.execute(
        "INSERT INTO standing (member_id, city_id, standing, version) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (member_id) DO UPDATE SET city_id = EXCLUDED.city_id,"
        " standing = EXCLUDED.standing, version = EXCLUDED.version",
        standing.member_id,
        standing.city_id,
        standing.standing,
        standing.version,
    )


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────


async def find_account(conn: Conn, account_id: UUID) -> Account | None:
    row = await conn.fetchrow(f"{SELECT_ACCOUNT} WHERE account_id = $1", account_id)
    return to_account(row) if row else None


async def find_member_account(conn: Conn, member_id: UUID, city_id: str) -> Account | None:
    """A member's account in a city's book."""
    return await find_account_of(conn, city_id, "member", member_id)


async def find_organisation_account(
    conn: Conn, organisation_id: UUID, city_id: str
) -> Account | None:
    """An organisation's account in a city's book."""
    return await find_account_of(conn, city_id, "organisation", organisation_id)


async def find_common_account(conn: Conn, city_id: str, kind: AccountKind) -> Account | None:
    """The city's own account of a kind: the commons or the solidarity fund."""
    return await find_account_of(conn, city_id, kind, None)


async def find_account_of(
    conn: Conn,
    city_id: str,
    kind: AccountKind,
    owner_id: UUID | None,
    peer_city_id: str | None = None,
) -> Account | None:
    row = await conn.fetchrow(
        f"{SELECT_ACCOUNT} WHERE city_id = $1 AND kind = $2"
        " AND owner_id IS NOT DISTINCT FROM $3 AND peer_city_id IS NOT DISTINCT FROM $4",
        city_id,
        kind,
        owner_id,
        peer_city_id,
    )
    return to_account(row) if row else None


async def find_accounts(conn: Conn, ids: Collection[UUID]) -> list[Account]:
    rows = await conn.fetch(f"{SELECT_ACCOUNT} WHERE account_id = ANY($1::uuid[])", list(ids))
    return [to_account(row) for row in rows]


async def list_accounts(
    conn: Conn,
    *,
    owner_id: UUID | None,
    city_id: str | None,
    kinds: Sequence[str] | None,
    after: UUID | None,
    limit: int,
) -> list[Account]:
    """Accounts in id order, from the one after `after`; what is None does not narrow."""
    rows = await conn.fetch(
        f"{SELECT_ACCOUNT}"
        " WHERE ($1::uuid IS NULL OR owner_id = $1) AND ($2::text IS NULL OR city_id = $2)"
        " AND ($3::text[] IS NULL OR kind = ANY($3)) AND ($4::uuid IS NULL OR account_id > $4)"
        " ORDER BY account_id LIMIT $5",
        owner_id,
        city_id,
        kinds,
        after,
        limit,
    )
    return [to_account(row) for row in rows]


async def find_book(conn: Conn, city_id: str) -> Book | None:
    row = await conn.fetchrow(
        "SELECT b.city_id, b.status,"
        " (SELECT count(*) FROM transfer t WHERE t.city_id = b.city_id) AS transfers,"
        " (SELECT count(*) FROM account a WHERE a.city_id = b.city_id) AS accounts,"
        " (SELECT coalesce(sum(balance_minutes), 0)::bigint FROM account a"
        "  WHERE a.city_id = b.city_id) AS sum_minutes"
        " FROM book b WHERE b.city_id = $1",
        city_id,
    )
    return Book(**row) if row else None


# ── Verifying ───────────────────────────────────────────────────────────────────────────────────


async def verify_transfers(conn: Conn) -> dict[str, list[str]]:
    """By city: transfers without postings, with postings that do not sum to zero, or of accounts
    of another city; and postings whose transfer or account is not there."""
    rows = await conn.fetch(
        "SELECT coalesce(t.city_id, min(p.city_id)) AS city_id, transfer_id,"
        " coalesce(sum(p.minutes), 0)::text AS minutes, count(p.*) AS postings,"
        " count(p.*) FILTER (WHERE p.city_id IS DISTINCT FROM t.city_id"
        "  OR a.city_id IS DISTINCT FROM t.city_id) AS strangers"
        " FROM transfer t FULL JOIN posting p USING (transfer_id)"
        " LEFT JOIN account a USING (account_id)"
        " GROUP BY transfer_id, t.city_id"
        " HAVING count(p.*) < 2 OR sum(p.minutes) <> 0"
        " OR count(p.*) FILTER (WHERE p.city_id IS DISTINCT FROM t.city_id"
        "  OR a.city_id IS DISTINCT FROM t.city_id) > 0"
        " ORDER BY 1, transfer_id"
    )
    found = defaultdict(list)
    for row in rows:
        found[row["city_id"]].append(
            f"transfer {row['transfer_id']}: {row['postings']} postings,"
            f" {row['strangers']} of another city, sum {row['minutes']}"
        )
    return dict(found)


async def verify_accounts(conn: Conn) -> dict[str, list[str]]:
    """By city: accounts whose balance or version is not what the postings say, whose postings do
    not continue one another, or that are outside their limits."""
    rows = await conn.fetch(
        "WITH line AS ("
        "  SELECT account_id, account_version, balance_minutes,"
        "  sum(minutes) OVER account AS replayed, row_number() OVER account AS place"
        "  FROM posting WINDOW account AS (PARTITION BY account_id ORDER BY account_version)"
        "), replay AS ("
        "  SELECT account_id, count(*) AS version,"
        "  count(*) FILTER (WHERE replayed <> balance_minutes OR place <> account_version)"
        "  AS broken FROM line GROUP BY account_id"
        "), total AS ("
        "  SELECT account_id, sum(minutes) AS balance FROM posting GROUP BY account_id)"
        " SELECT a.city_id, a.account_id, a.balance_minutes, a.version, a.floor_minutes,"
        " a.ceiling_minutes, coalesce(r.version, 0) AS replayed_version,"
        " coalesce(r.broken, 0) AS broken, coalesce(t.balance, 0)::text AS replayed_balance"
        " , a.held_minutes, coalesce(h.held, 0)::text AS open_holds"
        " FROM account a LEFT JOIN replay r USING (account_id) LEFT JOIN total t USING (account_id)"
        " LEFT JOIN (SELECT from_account AS account_id, sum(minutes) AS held FROM hold"
        "  WHERE status = 'open' GROUP BY from_account) h USING (account_id)"
        " WHERE a.balance_minutes <> coalesce(t.balance, 0) OR a.version <> coalesce(r.version, 0)"
        " OR coalesce(r.broken, 0) > 0 OR a.balance_minutes - a.held_minutes < a.floor_minutes"
        " OR a.held_minutes <> coalesce(h.held, 0)"
        " OR a.balance_minutes > a.ceiling_minutes"
        " ORDER BY a.city_id, a.account_id"
    )
    found = defaultdict(list)
    for row in rows:
        found[row["city_id"]].append(
            f"account {row['account_id']}: balance {row['balance_minutes']} (postings say"
            f" {row['replayed_balance']}), version {row['version']} (postings say"
            f" {row['replayed_version']}), floor {row['floor_minutes']}, ceiling"
            f" {row['ceiling_minutes']}, held {row['held_minutes']} (holds say"
            f" {row['open_holds']}),"
            f" {row['broken']} postings that do not continue"
        )
    return dict(found)


async def verify_holds(conn: Conn) -> dict[str, list[str]]:
    """By city: posted holds whose transfer does not give from and to what the hold says."""
    rows = await conn.fetch(
        "SELECT h.city_id, h.hold_id, h.posted_minutes, h.transfer_id FROM hold h"
        " WHERE h.status = 'posted' AND NOT ("
        "  EXISTS (SELECT FROM posting p WHERE p.transfer_id = h.transfer_id"
        "   AND p.account_id = h.from_account AND p.minutes = -h.posted_minutes)"
        "  AND EXISTS (SELECT FROM posting p WHERE p.transfer_id = h.transfer_id"
        "   AND p.account_id = h.to_account AND p.minutes = h.posted_minutes))"
        " ORDER BY h.city_id, h.hold_id"
    )
    found = defaultdict(list)
    for row in rows:
        found[row["city_id"]].append(
            f"hold {row['hold_id']}: {row['posted_minutes']} minutes are not what transfer"
            f" {row['transfer_id']} gave"
        )
    return dict(found)


async def book_totals(conn: Conn) -> list[dict[str, Any]]:
    """Per city: accounts, transfers, postings, and the sums of the balances and of the postings."""
    rows = await conn.fetch(
        "SELECT b.city_id, coalesce(a.accounts, 0) AS accounts,"
        " coalesce(t.transfers, 0) AS transfers, coalesce(p.postings, 0) AS postings,"
        " coalesce(a.balance, 0)::text AS balance, coalesce(p.minutes, 0)::text AS minutes"
        " FROM book b"
        " LEFT JOIN (SELECT city_id, count(*) AS accounts, sum(balance_minutes) AS balance"
        "  FROM account GROUP BY city_id) a USING (city_id)"
        " LEFT JOIN (SELECT city_id, count(*) AS transfers FROM transfer GROUP BY city_id) t"
        "  USING (city_id)"
        " LEFT JOIN (SELECT city_id, count(*) AS postings, sum(minutes) AS minutes"
        "  FROM posting GROUP BY city_id) p USING (city_id)"
        " ORDER BY b.city_id"
    )
    return [dict(row) for row in rows]
