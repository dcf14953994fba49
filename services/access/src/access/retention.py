"""Taps are kept 30 days with a pseudonym, then only as counts."""

import asyncio
from datetime import datetime, timedelta

from access import store
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


async def anonymise_for_ever(pool: Pool, clock: Clock) -> None:
    """Once an hour. Raises what failed."""
    while True:
        count = await anonymise(pool, clock())
        if count:
            log.info("taps_anonymised", taps=count)
        await forget_codes(pool, clock())
        await asyncio.sleep(EVERY_S)


async def anonymise(pool: Pool, now: datetime) -> int:
    """Turn every tap that is old enough into a count. Returns how many."""
    total = 0
    while True:
        async with pool.acquire() as conn, conn.transaction():
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
