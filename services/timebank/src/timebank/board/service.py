"""One who leaves for good: what runs on the board ends, and their words go."""

from datetime import datetime
from uuid import UUID

from common.db import Conn
from timebank.board import store
from timebank.board.exchanges import domain as exchange_domain
from timebank.board.exchanges import endings
from timebank.board.exchanges import service as exchanges
from timebank.board.exchanges import store as exchange_store
from timebank.board.listings import domain as listing_domain
from timebank.board.listings import service as listings
from timebank.board.listings import store as listing_store
from timebank.domain import Actor, Rejected


async def forget(conn: Conn, member_id: UUID, now: datetime) -> None:
    """End all that runs of a member, and erase their words; the numbers stay.

    Their accounts must still be open: what was held for others is freed.
    """
    await end_all_of(conn, member_id, now)
    await store.forget(conn, member_id)


async def end_all_of(conn: Conn, member_id: UUID, now: datetime) -> None:
    """End what runs of a member who leaves for good: requests and agreements are cancelled, with
    what they hold; loans that are out end as returned, their deposits freed; listings close."""
    actor = Actor(str(member_id), None)
    running = [item.id for item in await exchange_store.list_running_of(conn, member_id)]
    # All listings before any account, as everywhere.
    locked = await listing_store.lock_for_one_who_leaves(conn, member_id)
    for exchange_id in running:
        exchange = await exchange_store.find_exchange(conn, exchange_id)
        if exchange is None or exchange.ended_at is not None:
            continue
        # As it is now: a step before this one may have given some of it back.
        listing = await listing_store.find_listing(conn, exchange.listing_id)
        if listing is None:
            continue
        done = await exchanges.carry_out(
            conn, exchange_domain.leave(exchange, now), listing, actor, now
        )
        if isinstance(done, Rejected):
            raise RuntimeError(f"exchange {exchange.id} of one who left: {done.code}")
        await exchanges.tell_other(conn, done, actor, "exchange.cancelled", now)
    for listing_id in locked:
        listing = await listing_store.find_listing(conn, listing_id)
        if listing is None or listing.owner_id != member_id or listing.status != "open":
            continue
        await endings.decline_waiting(conn, listing.id, now)
        await listings.save(conn, listing_domain.closed(listing, "erased"), now)
