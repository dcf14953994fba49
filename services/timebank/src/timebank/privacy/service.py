"""All that is kept of a member, gathered; and how they are forgotten, noun by noun."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from common import idempotency
from common.db import Conn
from common.problems import Problem
from timebank import store as ledger_store
from timebank.board import service as board
from timebank.board import store as board_store
from timebank.board.listings import service as listings
from timebank.board.listings import store as listings_store
from timebank.clearing import store as clearing_store
from timebank.contributions import service as contributions
from timebank.contributions import store as contributions_store
from timebank.domain import Actor, Rejected
from timebank.holds import service as holds
from timebank.holds import store as holds_store
from timebank.log import store as log_store
from timebank.pledges import service as pledges_service
from timebank.pledges import store as pledges
from timebank.privacy import store
from timebank.rent import store as rent
from timebank.solidarity import store as solidarity
from timebank.standings import store as standings

# Of each table: more than anybody does in years, and still one answer.
ROWS_MAX = 100_000
ENDED = frozenset({"hold_already_posted", "hold_already_voided", "hold_expired"})
# Each noun keeps its own tables, and says what of them is a member's.
EXPORTS = (
    contributions_store.export_of,
    pledges.export_of,
    standings.export_of,
    solidarity.export_of,
    rent.export_of,
    board_store.export_of,
    clearing_store.export_of,
)
FORGETS = (
    contributions_store.forget,
    pledges.forget,
    standings.forget,
    solidarity.forget,
    rent.forget,
    clearing_store.forget,
    log_store.forget,
)


async def export(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All that the time bank keeps of a member, by table, as of one instant.

    Raises Problem 422 `export_too_long` beyond ROWS_MAX lines: statements by year hold them.
    """
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        tables = await store.export_of(conn, member_id, rows_max=ROWS_MAX + 1)
        for export_of in EXPORTS:
            tables |= await export_of(conn, member_id)
    if any(len(rows) > ROWS_MAX for rows in tables.values()):
        raise Problem(
            422, "export_too_long", f"There are more than {ROWS_MAX} lines: ask for statements."
        )
    return tables


async def forget(conn: Conn, member_id: UUID, now: datetime) -> None:
    """Forget a member who was erased: what runs ends, words go, their own and those on what was
    theirs; minutes stay.

    To be called before their accounts are closed, for what is held is freed first. Done again it
    finds nothing to do. The member's row is locked first, then what they take part in, then
    accounts.
    """
    if member_id not in await pledges.lock_members(conn, [member_id]):
        return
    member = await ledger_store.find_member(conn, member_id)
    await store.allow_forgetting(conn)
    if member is not None and await ledger_store.is_away(conn, member.city_id):
        # What runs ends where their city's book is now; here its words go.
        await forget_words(conn, member_id, await store.list_account_ids(conn, member_id))
        return
    await contributions.withdraw_member(conn, member_id, now)
    await forget_pledged_skills(conn, member_id, now)
    await forget_board(conn, member_id, now)
    accounts = await store.list_account_ids(conn, member_id)
    for hold_id in await store.list_open_holds(conn, accounts):
        await free(conn, hold_id, now)
    await forget_words(conn, member_id, accounts)


async def forget_words(conn: Conn, member_id: UUID, accounts: Sequence[UUID]) -> None:
    """Take away what was written, noun by noun."""
    await store.forget_memos(conn, member_id, accounts)
    for forget_of in FORGETS:
        await forget_of(conn, member_id)
    await idempotency.forget(conn, caller=str(member_id), ids=[member_id, *accounts])


async def forget_pledged_skills(conn: Conn, member_id: UUID, now: datetime) -> None:
    """Others keep the last state that they were told: it must not hold what a member can do."""
    for pledge in await pledges.pledges_of(conn, member_id):
        if pledge.skills:
            without = replace(pledge, skills=(), version=pledge.version + 1)
            await pledges.save_pledge(conn, without, ended_by=None, now=now)
            await pledges_service.publish(conn, without, now)


async def forget_board(conn: Conn, member_id: UUID, now: datetime) -> None:
    """As above: the last state of a listing holds neither skills nor a place."""
    spoken = await store.list_listings_with_words(conn, member_id)
    await board.forget(conn, member_id, now)
    for listing_id in await store.raise_listing_versions(conn, spoken):
        listing = await listings_store.find_listing(conn, listing_id)
        if listing is not None:
            await listings.tell(conn, listing, now)


async def free(conn: Conn, hold_id: UUID, now: datetime) -> None:
    """Release what is held for or by one who leaves; a hold past its time ends by itself."""
    hold = await holds_store.find_hold(conn, hold_id)
    if hold is None:
        return
    actor = Actor("identity", hold.city_id).for_the_city(hold.city_id)
    done = await holds.void(conn, hold_id, actor, now, hold.purpose)
    if isinstance(done, Rejected) and done.code not in ENDED:
        raise RuntimeError(f"hold {hold_id} of one who left: {done.code}")
