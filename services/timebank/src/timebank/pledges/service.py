"""What happens to pledges: one transaction each; lock the member, decide, save, tell."""

from datetime import date, datetime
from uuid import UUID

from common import outbox
from common.db import Conn
from common.ids import new_id
from common.logging import get_logger
from timebank import events, notices, service
from timebank import store as ledger_store
from timebank.domain import Actor, Leg, Rejected, Transfer, TransferRequest
from timebank.pledges import store
from timebank.pledges.domain import (
    Dues,
    Period,
    Pledge,
    Term,
    change_pledge,
    check_right,
    end_pledge,
    month_of,
    start_pledge,
)
from timebank.solidarity import store as solidarity_store
from timebank.standings import service as standings

log = get_logger(__name__)


NOT_FOUND = Rejected("not_found", "There is no such pledge.")


# ── Pledges ─────────────────────────────────────────────────────────────────────────────────────


async def start(
    conn: Conn,
    actor: Actor,
    *,
    pledge_id: UUID,
    member_id: UUID,
    minutes_per_month: int,
    skills: tuple[str, ...],
    starts_on: date | None,
    now: datetime,
) -> Pledge | Rejected:
    """Let a member pledge minutes of each month to the city where they are."""
    member = (await store.lock_members(conn, [member_id])).get(member_id)
    if member is None or member.status == "erased":
        return Rejected("not_found", "There is no such member.")
    if refused := check_right(actor, member_id, member.city_id, "member"):
        return refused
    today = await ledger_store.city_today(conn, member.city_id, now)
    start_day = starts_on or today
    wanted = Pledge(
        id=pledge_id,
        member_id=member_id,
        city_id=member.city_id,
        starts_on=start_day,
        terms=(Term(month_of(start_day), minutes_per_month),),
        skills=skills,
        made_by=actor.id,
        made_at=now,
    )
    pledge = start_pledge(
        wanted,
        actor,
        given_start=starts_on is not None,
        others=await store.pledges_of(conn, member_id, owing=True),
        today=today,
    )
    if isinstance(pledge, Rejected):
        return pledge
    if not await store.add_pledge(conn, pledge):
        return Rejected("pledge_id_reused", "Another pledge has this pledge_id.")
    await publish(conn, pledge, now)
    await standings.evaluate(conn, member_id, now)
    return pledge


async def lock(conn: Conn, pledge_id: UUID, actor: Actor) -> Pledge | Rejected:
    """A pledge that the actor may change, with its member locked."""
    pledge = await store.find_pledge(conn, pledge_id)
    if pledge is None:
        return NOT_FOUND
    if refused := check_right(actor, pledge.member_id, pledge.city_id, "pledge"):
        return refused
    await store.lock_members(conn, [pledge.member_id])
    # Again, now that nobody else can change it.
    return await store.find_pledge(conn, pledge_id) or NOT_FOUND


async def change(
    conn: Conn,
    actor: Actor,
    pledge_id: UUID,
    *,
    minutes_per_month: int | None,
    skills: tuple[str, ...] | None,
    now: datetime,
) -> Pledge | Rejected:
    """Change what is pledged from the next month on, or the skills."""
    pledge = await lock(conn, pledge_id, actor)
    if isinstance(pledge, Rejected):
        return pledge
    today = await ledger_store.city_today(conn, pledge.city_id, now)
    changed = change_pledge(pledge, minutes_per_month=minutes_per_month, skills=skills, today=today)
    if isinstance(changed, Rejected):
        return changed
    if len(changed.terms) > len(pledge.terms):
        await store.add_term(conn, changed, set_by=actor.id, now=now)
    await store.save_pledge(conn, changed, ended_by=None, now=now)
    await publish(conn, changed, now)
    return changed


async def end(conn: Conn, actor: Actor, pledge_id: UUID, now: datetime) -> Pledge | Rejected:
    """End a pledge with the month that it is."""
    pledge = await lock(conn, pledge_id, actor)
    if isinstance(pledge, Rejected):
        return pledge
    today = await ledger_store.city_today(conn, pledge.city_id, now)
    ended = end_pledge(pledge, today)
    if isinstance(ended, Pledge):
        await save_end(conn, ended, ended_by=actor.id, now=now)
    return ended


async def save_end(conn: Conn, ended: Pledge, *, ended_by: str, now: datetime) -> None:
    await store.save_pledge(conn, ended, ended_by=ended_by, now=now)
    await publish(conn, ended, now)
    await standings.evaluate(conn, ended.member_id, now)


async def follow_member(conn: Conn, member_id: UUID, now: datetime) -> None:
    """After identity told of a member: end what they pledged to a city that they have left.

    What they owe there stays owed, and so does their standing. Of one who was erased, all ends.
    """
    member = (await store.lock_members(conn, [member_id])).get(member_id)
    if member is None:
        return
    for pledge in await store.pledges_of(conn, member_id):
        if not pledge.running:
            continue
        if member.status == "erased" or pledge.city_id != member.city_id:
            today = await ledger_store.city_today(conn, pledge.city_id, now)
            ended = end_pledge(pledge, today, at_once=True)
            if isinstance(ended, Pledge):
                await save_end(conn, ended, ended_by="identity", now=now)
    if member.status == "erased":
        await solidarity_store.withdraw_all(conn, member_id, now)


async def publish(conn: Conn, pledge: Pledge, now: datetime) -> None:
    await outbox.add(
        conn,
        topic=events.PLEDGES,
        key=str(pledge.id),
        type=events.PLEDGE_CHANGED,
        data=events.pledge_changed(pledge),
        now=now,
    )


# ── Counting what was worked ────────────────────────────────────────────────────────────────────


async def count_contribution(
    conn: Conn,
    *,
    contribution_id: UUID,
    member_id: UUID,
    city_id: str,
    minutes: int,
    performed_on: date,
    actor: Actor,
    now: datetime,
) -> int:
    """Count a confirmed work towards what its giver pledged to the city; the minutes counted.

    They go from the giver to the commons, in this transaction, and the rest stays the giver's to
    spend: so the work's own minutes are posted before. Counts once per `contribution_id`: again, it
    says what was counted then. 0: nothing was pledged, all is met, or the giver cannot give now.
    The member is locked here. Whoever posts before calling this locks the members first
    (`store.lock_members`), because members come before accounts.
    """
    members = await store.lock_members(conn, [member_id])
    known = await store.find_credit(conn, "contribution", contribution_id)
    if known is not None:
        return 0 if known.undone_by else known.minutes
    dues = await find_dues_to(conn, member_id, city_id, now)
    if dues is None or member_id not in members:
        return 0
    counted = min(minutes, dues.room(performed_on))
    if counted == 0:
        return 0
    given = await give_to_commons(
        conn, member_id=member_id, city_id=city_id, minutes=counted, actor=actor, now=now
    )
    if isinstance(given, Rejected):
        log.info("not_counted", contribution_id=str(contribution_id), code=given.code)
        return 0
    credit = store.Credit(
        id=contribution_id,
        source="contribution",
        member_id=member_id,
        city_id=city_id,
        month=month_of(performed_on),
        minutes=counted,
        transfer_id=given.id,
    )
    await add_credit(conn, credit, dues, now)
    return counted


async def uncount_contribution(
    conn: Conn, contribution_id: UUID, *, actor: Actor, now: datetime
) -> int | Rejected:
    """Give back what was counted of a work, exactly, from the commons to its giver; the minutes.

    To be called before the work's own minutes are taken back. 0: nothing was counted, or it was
    given back before. Rejected, with nothing done, when an account refuses (a closed one, a floor
    or ceiling that somebody set).
    """
    credit = await store.find_credit(conn, "contribution", contribution_id)
    if credit is None:
        return 0
    await store.lock_members(conn, [credit.member_id])
    # Again, now that nobody else can give it back.
    credit = await store.find_credit(conn, "contribution", contribution_id)
    if credit is None or credit.undone_by is not None:
        return 0
    original = await ledger_store.find_transfer(conn, credit.transfer_id)
    if original is None:
        raise LookupError(f"the transfer of credit {credit.id} is missing")
    back = await service.take_back_now(conn, original, actor, reversal_id=new_id(), now=now)
    if isinstance(back, Rejected):
        return back
    await store.undo_credit(conn, credit, transfer_id=back.id, now=now)
    await standings.evaluate(conn, credit.member_id, now)
    return credit.minutes


async def give_to_commons(
    conn: Conn, *, member_id: UUID, city_id: str, minutes: int, actor: Actor, now: datetime
) -> Transfer | Rejected:
    """Post what a member gives for their pledge."""
    payer = await ledger_store.find_member_account(conn, member_id, city_id)
    payee = await ledger_store.find_common_account(conn, city_id, "commons")
    if payer is None or payee is None:
        return Rejected("account_not_found", "The member has no account in this city.", "payer")
    return await service.post_now(
        conn,
        TransferRequest(
            transfer_id=new_id(),
            own_id=False,
            key=None,
            actor=actor.for_the_city(city_id),
            legs=(Leg(payer.id, -minutes), Leg(payee.id, minutes)),
            purpose="pledge",
        ),
        now,
    )


async def add_credit(conn: Conn, credit: store.Credit, before: Dues, now: datetime) -> None:
    """Write minutes that count, judge the member anew, and tell them of the month that it met."""
    await store.add_credit(conn, credit, now)
    await standings.evaluate(conn, credit.member_id, now)
    after = await find_dues_to(conn, credit.member_id, credit.city_id, now)
    met = newly_met(before, after) if after else None
    if met:
        await notices.tell(
            conn,
            member_id=credit.member_id,
            kind="pledge.met",
            subject={
                "city_id": credit.city_id,
                "month": met.month,
                "minutes": met.owed_minutes,
            },
            now=now,
        )


def newly_met(before: Dues, after: Dues) -> Period | None:
    """The last month that is met now and was not before."""
    was_short = {period.month for period in before.periods if period.short_minutes}
    met = [
        period
        for period in after.periods
        if period.short_minutes == 0 and period.month in was_short
    ]
    return met[-1] if met else None


async def find_dues_to(conn: Conn, member_id: UUID, city_id: str, now: datetime) -> Dues | None:
    """What a member owes one city; None when they never pledged anything to it."""
    for dues in await store.find_dues(conn, member_id, now):
        if dues.city_id == city_id:
            return dues
    return None
