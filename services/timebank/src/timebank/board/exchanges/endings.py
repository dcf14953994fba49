"""Saving what a step made of an exchange, and telling of it; ends that nobody asked for."""

from datetime import date, datetime
from uuid import UUID

from common import outbox
from common.db import Conn
from timebank import events, notices
from timebank.board.exchanges import domain, store
from timebank.board.exchanges.domain import Exchange, Side
from timebank.notices import NoticeKind


async def save(conn: Conn, exchange: Exchange, now: datetime) -> None:
    """Write a changed exchange and tell the others; the caller holds the lock of its listing."""
    await store.save_exchange(conn, exchange)
    await publish(conn, exchange, now)


async def publish(conn: Conn, exchange: Exchange, now: datetime) -> None:
    await outbox.add(
        conn,
        topic=events.EXCHANGES,
        key=str(exchange.id),
        type=events.EXCHANGE_CHANGED,
        data=events.exchange_changed(exchange),
        now=now,
    )


async def notify(
    conn: Conn,
    exchange: Exchange,
    side: Side,
    kind: NoticeKind,
    now: datetime,
    **more: UUID | date | str | int | None,
) -> None:
    """Tell one side. An organisation is nobody to tell: its stewards look."""
    party = exchange.party(side)
    if party.kind == "member":
        await notices.tell(
            conn,
            member_id=party.id,
            kind=kind,
            subject={"exchange_id": exchange.id, "listing_id": exchange.listing_id, **more},
            now=now,
        )


async def decline_waiting(conn: Conn, listing_id: UUID, now: datetime) -> None:
    """Decline who waits for an answer about a listing that closes; its lock is held."""
    for waiting in await store.list_waiting(conn, listing_id):
        exchange = domain.close_listing(waiting, now).exchange
        await save(conn, exchange, now)
        await notify(
            conn, exchange, exchange.requester_side, "exchange.declined", now, because="closed"
        )
