"""After a city has arrived: what was said to it while it was nowhere.

The time bank that it left had closed its book, and this one had not opened it, so neither listened.
The topics still have it: they are read again from the start, for this city alone. What it heard
before it is not told twice.
"""

import asyncio
from collections.abc import Mapping

from common.clock import Clock
from common.consumer import Handler
from common.db import Pool
from common.events import Event
from common.logging import get_logger
from timebank import consumers
from timebank import store as ledger_store
from timebank.cities import store
from timebank.clearing.keys import Vault
from timebank.clearing.messages import WrongMessage, read_message
from timebank.events import CLEARING
from timebank.log import recall
from timebank.settings import Settings

LOOK_EVERY_S = 2.0

log = get_logger(__name__)


async def keep_catching_up(settings: Settings, pool: Pool, vault: Vault, clock: Clock) -> None:
    """The worker's task: catch up with each city that was imported and that is served here."""
    warned: set[str] = set()
    while True:
        async with pool.acquire() as conn:
            waiting = await store.cities_to_catch_up(conn)
        for city_id in waiting:
            if settings.serves(city_id):
                await catch_up(settings, pool, vault, clock, city_id)
            elif city_id not in warned:
                warned.add(city_id)
                log.warning("city_here_but_not_served", city=city_id)
        await asyncio.sleep(LOOK_EVERY_S)


async def catch_up(
    settings: Settings, pool: Pool, vault: Vault, clock: Clock, city_id: str
) -> None:
    """Let the city hear all that the topics hold for it, then write down that it has.

    Raises KafkaError or TimeoutError when the broker does not answer; to be begun again then.
    """
    handlers = {
        **consumers.handlers(clock, settings.serves),
        **consumers.clearing_handlers(vault, clock),
    }

    async def take(topic: str, event: Event) -> None:
        await hear_again(pool, handlers, city_id, topic, event)

    # Cities first: a member's city has a clock.
    for topic in (consumers.CITIES, consumers.MEMBERS, CLEARING.name):
        await recall.read_from_start(settings, [topic], take)
    async with pool.acquire() as conn, conn.transaction():
        if await store.lock_place(conn, city_id) == "here":
            await store.add_step(conn, city_id, "caught_up", clock())
    log.info("city_caught_up", city=city_id)


async def hear_again(
    pool: Pool, handlers: Mapping[str, Handler], city_id: str, topic: str, event: Event
) -> None:
    """Handle an event if it concerns the city and is news to it. One that cannot be handled is
    left to the worker's own consumer, which met it too."""
    if not await concerns(pool, city_id, topic, event):
        return
    try:
        async with pool.acquire() as conn, conn.transaction():
            await handlers[topic](conn, event)
    except ValueError as error:
        log.warning("not_heard_again", topic=topic, city=city_id, error=type(error).__name__)


async def concerns(pool: Pool, city_id: str, topic: str, event: Event) -> bool:
    if topic != CLEARING.name:
        # One who was erased has left words in any city.
        return event.data.get("city_id") == city_id or event.data.get("status") == "erased"
    if event.data.get("to_city") != city_id:
        return False
    try:
        message = read_message(event.data)
    except WrongMessage:
        return False
    async with pool.acquire() as conn:
        here = await ledger_store.has_book(conn, city_id)
        return here and not await store.has_heard(conn, city_id, message.envelope.message_id)
