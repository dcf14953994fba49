"""What time does to the board: listings end, requests nobody answered too, late loans are told."""

import asyncio
from datetime import datetime

from common.clock import Clock
from common.db import Pool
from common.logging import get_logger
from timebank import store as ledger_store
from timebank.board.exchanges import endings
from timebank.board.exchanges import service as exchanges
from timebank.board.exchanges import store as exchange_store
from timebank.board.exchanges.domain import REQUEST_WAITS
from timebank.board.listings import service as listings
from timebank.board.listings import store as listing_store

EVERY_S = 30.0
BATCH = 100

log = get_logger(__name__)


async def end_listings(pool: Pool, now: datetime) -> int:
    """Close the listings whose last day is past, at most BATCH; one transaction each."""
    async with pool.acquire() as conn:
        due = await listing_store.list_ended(conn, now, BATCH)
    ended = 0
    for listing_id in due:
        async with pool.acquire() as conn, conn.transaction():
            ended += await listings.expire(conn, listing_id, now)
    return ended


async def end_requests(pool: Pool, now: datetime) -> int:
    """End the requests that wait for too long, at most BATCH; one transaction each."""
    async with pool.acquire() as conn:
        due = await exchange_store.list_unanswered(conn, now - REQUEST_WAITS, BATCH)
    ended = 0
    for exchange in due:
        async with pool.acquire() as conn, conn.transaction():
            ended += await exchanges.expire(conn, exchange, now)
    return ended


async def tell_of_late(pool: Pool, now: datetime) -> int:
    """Tell both sides of loans that are not back, at most BATCH, each once. Nothing else happens:
    who lent decides whether to wait or to claim."""
    async with pool.acquire() as conn, conn.transaction():
        late = await exchange_store.tell_late(conn, now, BATCH)
        for exchange in late:
            today = await ledger_store.city_today(conn, exchange.city_id, now)
            days = exchange_store.days_late(exchange, today)
            for side in ("giver", "receiver"):
                await endings.notify(conn, exchange, side, "exchange.late", now, days=days)
    return len(late)


async def keep_board(pool: Pool, clock: Clock) -> None:
    """The worker's task, every EVERY_S seconds; at once when there may be more."""
    while True:
        now = clock()
        done = {
            "listings_ended": await end_listings(pool, now),
            "requests_ended": await end_requests(pool, now),
            "loans_late": await tell_of_late(pool, now),
        }
        if any(done.values()):
            log.info("board_kept", **done)
        if max(done.values()) < BATCH:
            await asyncio.sleep(EVERY_S)
