"""What happens to standings: judged again whenever something that they follow from changed."""

import asyncio
from datetime import date, datetime
from uuid import UUID

from common import outbox
from common.clock import Clock
from common.db import Conn, Pool
from common.logging import get_logger
from timebank import events, notices
from timebank import store as ledger_store
from timebank.pledges import store as pledges_store
from timebank.standings import store
from timebank.standings.domain import Judgement, judge, next_days
from timebank.store import Standing

LOOK_EVERY_S = 5.0
LOOK_BATCH = 100

log = get_logger(__name__)


async def evaluate(conn: Conn, member_id: UUID, now: datetime) -> Standing | None:
    """Judge a member anew, and tell of it if that changes anything; the standing as it is then.

    The caller holds the member's lock (`pledges.store.lock_members`). None: nobody to judge.
    """
    member = await ledger_store.find_member(conn, member_id)
    known = await ledger_store.find_standing(conn, member_id)
    if member is None or known is None or member.status == "erased":
        await store.save_due(conn, member_id, [])
        return known
    dues = await pledges_store.find_dues(conn, member_id, now)
    exemptions = await pledges_store.exemptions_of(conn, member_id)
    today = await ledger_store.city_today(conn, member.city_id, now)
    judged = judge(dues, exemptions, today)
    lasting = [exemption for exemption in exemptions if exemption.covers(today)]
    await store.save_due(conn, member_id, next_days(dues, lasting, city_id=member.city_id))
    if judged.standing == known.standing:
        return known
    changed = Standing(member_id, member.city_id, judged.standing, known.version + 1)
    await write(
        conn,
        changed,
        cause=judged.cause,
        month=judged.month,
        exemption_id=judged.exemption_id,
        now=now,
    )
    await tell(conn, known, judged, now)
    return changed


async def write(
    conn: Conn,
    standing: Standing,
    *,
    cause: str,
    month: date | None = None,
    exemption_id: UUID | None = None,
    now: datetime,
) -> None:
    """Write a standing that changed, why, and the event."""
    await ledger_store.save_standing(conn, standing)
    await store.add_history(
        conn,
        member_id=standing.member_id,
        version=standing.version,
        city_id=standing.city_id,
        standing=standing.standing,
        cause=cause,
        month=month,
        exemption_id=exemption_id,
        now=now,
    )
    await outbox.add(
        conn,
        topic=events.STANDINGS,
        key=str(standing.member_id),
        type=events.STANDING_CHANGED,
        data=events.standing_changed(
            member_id=str(standing.member_id),
            city_id=standing.city_id,
            standing=standing.standing,
            version=standing.version,
        ),
        now=now,
    )


async def tell(conn: Conn, before: Standing, judged: Judgement, now: datetime) -> None:
    """Tell the member; of a month that is short, also how much and until when."""
    if judged.standing == "grace":
        await notices.tell(
            conn,
            member_id=before.member_id,
            kind="pledge.short",
            subject={
                "city_id": judged.city_id,
                "month": judged.month,
                "missing_minutes": judged.short_minutes,
                "until": judged.until,
            },
            now=now,
        )
    await notices.tell(
        conn,
        member_id=before.member_id,
        kind="standing.changed",
        subject={
            "standing": judged.standing,
            "before": before.standing,
            "month": judged.month,
            "until": judged.until,
        },
        now=now,
    )


async def evaluate_due(pool: Pool, now: datetime) -> int:
    """Judge those for whom time has passed, at most LOOK_BATCH; how many were looked at.

    One transaction each: a member who is busy holds nobody else up.
    """
    async with pool.acquire() as conn:
        due = await store.list_due(conn, now, LOOK_BATCH)
    for member_id in due:
        async with pool.acquire() as conn, conn.transaction():
            await pledges_store.lock_members(conn, [member_id])
            await evaluate(conn, member_id, now)
    return len(due)


async def keep_evaluating(pool: Pool, clock: Clock) -> None:
    """The worker's task: look at who is due, every LOOK_EVERY_S seconds."""
    while True:
        looked = await evaluate_due(pool, clock())
        if looked:
            log.info("standings_evaluated", count=looked)
        if looked < LOOK_BATCH:
            await asyncio.sleep(LOOK_EVERY_S)
