"""What happens at the solidarity fund, each in one transaction: lock the member, decide, post."""

from dataclasses import replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from common.db import Conn
from common.ids import new_id
from timebank import notices, service
from timebank import store as ledger_store
from timebank.domain import Account, Actor, Leg, Rejected, Transfer, TransferRequest
from timebank.pledges import service as pledges
from timebank.pledges import store as pledges_store
from timebank.pledges.domain import Dues
from timebank.solidarity import store
from timebank.solidarity.domain import (
    NOT_FOUND,
    Gift,
    HelpRequest,
    Purpose,
    check_decider,
    decide_request,
    granted,
)

NO_MEMBER = Rejected("not_found", "There is no such member.")
NO_ACCOUNT = Rejected("account_not_found", "There is no account to move minutes from or to.")


async def give(
    conn: Conn,
    actor: Actor,
    *,
    gift_id: UUID,
    member_id: UUID,
    minutes: int,
    anonymous: bool,
    now: datetime,
) -> Gift | Rejected:
    """Give minutes of one's own to the fund of the city where one is."""
    member = (await pledges_store.lock_members(conn, [member_id])).get(member_id)
    if member is None or actor.id != str(member_id):
        return NO_MEMBER
    gift = Gift(
        id=gift_id,
        member_id=member_id,
        city_id=member.city_id,
        minutes=minutes,
        anonymous=anonymous,
        transfer_id=new_id(),
        given_at=now,
    )
    if not await store.add_gift(conn, gift):
        return Rejected("gift_id_reused", "Another gift has this gift_id.")
    payer = await ledger_store.find_member_account(conn, member_id, member.city_id)
    fund = await ledger_store.find_common_account(conn, member.city_id, "solidarity_fund")
    given = await post(conn, actor, payer, fund, gift.transfer_id, minutes, now)
    return given if isinstance(given, Rejected) else gift


async def ask(
    conn: Conn,
    actor: Actor,
    *,
    request_id: UUID,
    member_id: UUID,
    minutes: int,
    purpose: Purpose,
    reason: str | None,
    now: datetime,
) -> HelpRequest | Rejected:
    """Ask the fund: of the city where one is, or, for a pledge, where the oldest month is short."""
    member = (await pledges_store.lock_members(conn, [member_id])).get(member_id)
    # The token of one who was erased is good for some minutes: no words are to come after.
    if member is None or member.status == "erased" or actor.id != str(member_id):
        return NO_MEMBER
    city_id = member.city_id
    if purpose == "pledge":
        short = [dues for dues in await pledges_store.find_dues(conn, member_id, now) if dues.short]
        if not short:
            return Rejected("nothing_short", "No month of your pledge that is over is short.")
        city_id = min(short, key=lambda dues: dues.short[0].month).city_id
    if await store.find_open(conn, member_id, purpose):
        return Rejected("request_open", "You have asked for this already: wait for the answer.")
    request = HelpRequest(
        id=request_id,
        member_id=member_id,
        city_id=city_id,
        minutes=minutes,
        purpose=purpose,
        asked_at=now,
    )
    if not await store.add_request(conn, request, reason):
        return Rejected("request_id_reused", "Another request has this request_id.")
    return request


async def lock(conn: Conn, request_id: UUID) -> HelpRequest | None:
    """A request, with its member locked until the transaction ends."""
    request = await store.find_request(conn, request_id)
    if request is None:
        return None
    await pledges_store.lock_members(conn, [request.member_id])
    # Again, now that nobody else can decide it.
    return await store.find_request(conn, request_id)


async def grant(
    conn: Conn, actor: Actor, request_id: UUID, *, minutes: int | None, now: datetime
) -> HelpRequest | Rejected:
    """Help from the fund: to the member's account, or to the commons for months that are short."""
    request = await lock(conn, request_id)
    if request is None:
        return NOT_FOUND
    if refused := check_decider(request, actor):
        return refused
    decided = decide_request(request, "granted", actor, now)
    if isinstance(decided, Rejected):
        return decided
    dues = None
    if request.purpose == "pledge":
        dues = await pledges.find_dues_to(conn, request.member_id, request.city_id, now)
    short = sum(period.short_minutes for period in dues.short) if dues else None
    if request.purpose == "pledge" and short is None:
        short = 0
    given = granted(request, minutes=minutes, short_minutes=short)
    if isinstance(given, Rejected):
        return given
    posted = await post_help(conn, actor, request, given, now)
    if isinstance(posted, Rejected):
        return posted
    decided = replace(decided, granted_minutes=given, transfer_id=posted.id)
    await store.save_request(conn, decided)
    if dues is not None:
        await count_help(conn, decided, posted, dues, given, now)
    await tell(conn, decided, "solidarity.granted", now)
    return decided


async def post_help(
    conn: Conn, actor: Actor, request: HelpRequest, minutes: int, now: datetime
) -> Transfer | Rejected:
    fund = await ledger_store.find_common_account(conn, request.city_id, "solidarity_fund")
    if request.purpose == "pledge":
        payee = await ledger_store.find_common_account(conn, request.city_id, "commons")
    else:
        payee = await ledger_store.find_member_account(conn, request.member_id, request.city_id)
    actor = actor.for_the_city(request.city_id)
    return await post(conn, actor, fund, payee, new_id(), minutes, now)


async def count_help(
    conn: Conn, request: HelpRequest, posted: Transfer, dues: Dues, minutes: int, now: datetime
) -> None:
    """Count help towards the oldest month that is short."""
    credit = pledges_store.Credit(
        id=request.id,
        source="help",
        member_id=request.member_id,
        city_id=request.city_id,
        month=dues.short[0].month,
        minutes=minutes,
        transfer_id=posted.id,
    )
    await pledges.add_credit(conn, credit, dues, now)


async def decline(
    conn: Conn, actor: Actor, request_id: UUID, now: datetime
) -> HelpRequest | Rejected:
    """Decline a request."""
    request = await lock(conn, request_id)
    if request is None:
        return NOT_FOUND
    if refused := check_decider(request, actor):
        return refused
    decided = decide_request(request, "declined", actor, now)
    if isinstance(decided, HelpRequest):
        await store.save_request(conn, decided)
        await tell(conn, decided, "solidarity.declined", now)
    return decided


async def withdraw(
    conn: Conn, actor: Actor, request_id: UUID, now: datetime
) -> HelpRequest | Rejected:
    """Take one's own request back."""
    request = await lock(conn, request_id)
    if request is None or str(request.member_id) != actor.id:
        return NOT_FOUND
    decided = decide_request(request, "withdrawn", actor, now)
    if isinstance(decided, HelpRequest):
        await store.save_request(conn, decided)
    return decided


async def post(
    conn: Conn,
    actor: Actor,
    payer: Account | None,
    payee: Account | None,
    transfer_id: UUID,
    minutes: int,
    now: datetime,
) -> Transfer | Rejected:
    if payer is None or payee is None:
        return NO_ACCOUNT
    return await service.post_now(
        conn,
        TransferRequest(
            transfer_id=transfer_id,
            own_id=False,
            key=None,
            actor=actor,
            legs=(Leg(payer.id, -minutes), Leg(payee.id, minutes)),
            purpose="solidarity",
        ),
        now,
    )


async def tell(
    conn: Conn,
    request: HelpRequest,
    kind: Literal["solidarity.granted", "solidarity.declined"],
    now: datetime,
) -> None:
    await notices.tell(
        conn,
        member_id=request.member_id,
        kind=kind,
        subject={
            "request_id": request.id,
            "purpose": request.purpose,
            "minutes": request.granted_minutes,
        },
        now=now,
    )
