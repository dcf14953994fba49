"""The history's tables, one for each day in UTC: made ahead, and dropped when they are 30 days old.

A decision_id is a UUIDv7 (RFC 9562, 5.7): its first 48 bits are milliseconds since 1970, so a day
is a range of ids. Taps of a day without a table are in `tap_other` until it is made.
"""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from common.db import Conn

AHEAD_DAYS = 7
NAME = "tap_%Y_%m_%d"
# A day that went into `tap_other`, because no worker ran, is moved at once: as long as it takes.
WORK_S = 300
# Dropping needs all other users of the history to pause: it must not keep them waiting long.
TIMEOUTS = f"SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '{WORK_S}s'"
# Any one number: who changes the tables, or forgets rows of many, is alone in doing so.
ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(781204)"


def first_id(day: date) -> UUID:
    """The lowest UUIDv7-like id of a day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return UUID(int=int(start.timestamp() * 1000) << 80)


def day_of(decision_id: UUID) -> date:
    """The day in UTC on which an id was made."""
    return datetime.fromtimestamp((decision_id.int >> 80) / 1000, UTC).date()


async def be_alone(conn: Conn) -> None:
    """Until the transaction ends, nobody else changes the tables. Raises
    asyncpg.LockNotAvailableError when somebody else is at it."""
    await conn.execute(TIMEOUTS)
    await conn.execute(ONE_AT_A_TIME)


async def list_days(conn: Conn) -> list[date]:
    """The days that have a table, the first first."""
    rows = await conn.fetch(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'tap'::regclass AND c.relname <> 'tap_other' ORDER BY 1"
    )
    return [datetime.strptime(row["relname"], NAME).replace(tzinfo=UTC).date() for row in rows]


async def make_day(conn: Conn, day: date) -> bool:
    """Make the table of a day, and move there what is in `tap_other`. False if it is there.

    To be called in a transaction. Raises asyncpg.LockNotAvailableError when others do not pause.
    """
    await be_alone(conn)
    if day in await list_days(conn):
        return False
    name, start, end = f"{day:{NAME}}", first_id(day), first_id(day + timedelta(days=1))
    await conn.execute(f"CREATE TABLE {name} (LIKE tap INCLUDING ALL)")
    # Before rows move, nobody may add any to where they leave.
    await conn.execute("LOCK TABLE tap_other IN ACCESS EXCLUSIVE MODE")
    await conn.execute(
        "WITH moved AS (DELETE FROM tap_other"  # noqa: S608 - a name of ours
        " WHERE decision_id >= $1 AND decision_id < $2"
        f" RETURNING *) INSERT INTO {name} SELECT * FROM moved",
        start,
        end,
        timeout=WORK_S,
    )
    await conn.execute(
        f"ALTER TABLE tap ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')",
        timeout=WORK_S,
    )
    return True


async def first_day_elsewhere(conn: Conn) -> date | None:
    """The first day whose taps are in `tap_other`."""
    first: UUID | None = await conn.fetchval(
        "SELECT decision_id FROM tap_other ORDER BY decision_id LIMIT 1"
    )
    return day_of(first) if first is not None else None


async def count_and_drop(conn: Conn, day: date) -> int:
    """Turn all taps of a day into daily counts; its table is gone then. Returns how many there
    were.

    To be called in a transaction. Raises asyncpg.LockNotAvailableError when others do not pause.
    """
    await be_alone(conn)
    name = f"{day:{NAME}}"
    if day not in await list_days(conn):
        return 0
    # It is read on, and stays as it is.
    await conn.execute(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE")
    taps = await conn.fetchval(
        "WITH counted AS (INSERT INTO tap_daily_count AS known"  # noqa: S608 - a name of ours
        " (place_id, city_id, day, direction, decision, reason, taps)"
        " SELECT place_id, min(city_id), (occurred_at AT TIME ZONE 'UTC')::date, direction,"
        f" decision, reason, count(*) FROM {name}"
        " GROUP BY place_id, (occurred_at AT TIME ZONE 'UTC')::date, direction, decision, reason"
        " ON CONFLICT (place_id, day, direction, decision, reason)"
        " DO UPDATE SET taps = known.taps + EXCLUDED.taps)"
        f" SELECT count(*) FROM {name}",
        timeout=WORK_S,
    )
    # Whoever reads the history locks the whole before its parts: in any other order than theirs
    # they and we would wait for each other.
    await conn.execute("LOCK TABLE ONLY tap IN ACCESS EXCLUSIVE MODE")
    await conn.execute(f"DROP TABLE {name}")
    return int(taps)
