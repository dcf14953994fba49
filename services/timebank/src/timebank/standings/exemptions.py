"""What happens to exemptions: one transaction each; lock the member, decide, save, judge anew."""

from dataclasses import replace
from datetime import date, datetime
from uuid import UUID

from common.db import Conn
from timebank import store as ledger_store
from timebank.domain import Actor, Rejected
from timebank.pledges import store as pledges_store
from timebank.pledges.domain import Exemption
from timebank.standings import service, store
from timebank.standings.domain import NOT_EXEMPT, check_steward, grant_exemption

NO_MEMBER = Rejected("not_found", "There is no such member.")


async def grant(
    conn: Conn,
    actor: Actor,
    *,
    exemption_id: UUID,
    member_id: UUID,
    reason: str,
    until: date | None,
    now: datetime,
) -> Exemption | Rejected:
    """Exempt a member from today on, up to and with `until`, or until somebody ends it."""
    member = (await pledges_store.lock_members(conn, [member_id])).get(member_id)
    if member is None or member.status == "erased":
        return NO_MEMBER
    if refused := check_steward(actor, member_id, member.city_id):
        return refused
    today = await ledger_store.city_today(conn, member.city_id, now)
    others = await pledges_store.exemptions_of(conn, member_id)
    wanted = Exemption(
        id=exemption_id,
        member_id=member_id,
        city_id=member.city_id,
        from_on=today,
        until=until,
        granted_by=actor.id,
        granted_at=now,
    )
    exemption = grant_exemption(wanted, others)
    if isinstance(exemption, Rejected):
        return exemption
    for other in others:
        # One whose last day has passed is written as ended: one at a time stands open.
        if other.ended_on is None:
            await store.end_exemption(
                conn, other.id, ended_on=other.end, ended_by="calendar", now=now
            )
    await store.add_exemption(conn, exemption, reason, now)
    await service.evaluate(conn, member_id, now)
    return exemption


async def end(conn: Conn, actor: Actor, member_id: UUID, now: datetime) -> Exemption | Rejected:
    """End a member's exemption today: what they owed before is owed again."""
    member = (await pledges_store.lock_members(conn, [member_id])).get(member_id)
    if member is None:
        return NO_MEMBER
    if refused := check_steward(actor, member_id, member.city_id):
        return refused
    today = await ledger_store.city_today(conn, member.city_id, now)
    exemption = await find_current(conn, member_id, today)
    if exemption is None:
        return NOT_EXEMPT
    # The city that granted it may be a day ahead.
    ended_on = max(today, exemption.from_on)
    await store.end_exemption(conn, exemption.id, ended_on=ended_on, ended_by=actor.id, now=now)
    await service.evaluate(conn, member_id, now)
    return replace(exemption, ended_on=ended_on)


async def find_current(conn: Conn, member_id: UUID, today: date) -> Exemption | None:
    """The exemption that holds today, if one does."""
    for exemption in await pledges_store.exemptions_of(conn, member_id):
        if exemption.covers(today):
            return exemption
    return None
