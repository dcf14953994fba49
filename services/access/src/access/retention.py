"""Taps are kept 30 days with a pseudonym, then only as counts."""

import asyncio
from datetime import UTC, datetime, time, timedelta

from access import partitions, store
from common.clock import Clock
from common.db import Pool
from common.logging import get_logger
from copass_tap.decision import REPLAY_AGE_MAX
from copass_tap.passes import window_at

KEPT = timedelta(days=30)
# A replayed tap can be 30 days old when it arrives. It stays a day all the same, so that the relay
# finds it in the history and lets it go.
KEPT_AT_LEAST = timedelta(days=1)
EVERY_S = 3600.0
BATCH = 5000

log = get_logger(__name__)


async def keep_history(pool: Pool, clock: Clock) -> None:
    """Once an hour. Raises what failed."""
    while True:
        now = clock()
        await make_days(pool, now)
        count = await anonymise(pool, now)
        if count:
            log.info("taps_anonymised", taps=count)
        await forget_codes(pool, now)
        await asyncio.sleep(EVERY_S)


async def make_days(pool: Pool, now: datetime) -> None:
    """See to it that taps find the table of their day, also those that did not."""
    today = now.astimezone(UTC).date()
    for ahead in range(partitions.AHEAD_DAYS + 1):
        async with pool.acquire() as conn, conn.transaction():
            await partitions.make_day(conn, today + timedelta(days=ahead))
    while True:
        async with pool.acquire() as conn, conn.transaction():
            day = await partitions.first_day_elsewhere(conn)
            if day is None or not await partitions.make_day(conn, day):
                return


async def anonymise(pool: Pool, now: datetime) -> int:
    """Turn every tap that is old enough into a count. Returns how many.

    A day's taps go together when the first of them may be 30 days old; one by one, only those that
    readers sent late.
    """
    total = 0
    async with pool.acquire() as conn:
        days = await partitions.list_days(conn)
    for day in days:
        if datetime.combine(day, time.min, UTC) <= now - KEPT:
            async with pool.acquire() as conn, conn.transaction():
                total += await partitions.count_and_drop(conn, day)
    while True:
        async with pool.acquire() as conn, conn.transaction():
            await partitions.be_alone(conn)
            count = await store.anonymise_taps(
                conn,
                occurred_before=now - KEPT,
                decided_before=now - KEPT_AT_LEAST,
                limit=BATCH,
            )
        total += count
        if count < BATCH:
            return total


async def forget_codes(pool: Pool, now: datetime) -> int:
    """Forget which phone was shown where, when no late tap can show the same code any more."""
    before = window_at(int((now - REPLAY_AGE_MAX).timestamp()))
    total = 0
    while True:
        async with pool.acquire() as conn:
            count = await store.forget_codes(conn, before_window=before, limit=BATCH)
        total += count
        if count < BATCH:
            return total
