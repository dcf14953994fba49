"""What is done with notices: taken in, read, chosen, gathered for the day."""

from datetime import datetime
from uuid import UUID

import asyncpg

from common.db import Conn, Pool
from common.ids import new_id
from common.problems import conflict, not_found
from identity import store as people
from identity.notices import store
from identity.notices.domain import (
    DELIVERIES_KEPT,
    DELIVERIES_PER_DAY_MAX,
    KEPT,
    STALE,
    SUBSCRIPTIONS_MAX,
    DigestDay,
    Notice,
    Preferences,
    Subscription,
    digest_due,
)

DIGEST_BATCH = 200
DIGEST_BATCHES_MAX = 50


async def take_in(
    conn: Conn, notice: Notice, *, email_on: bool, push_on: bool, now: datetime
) -> None:
    """Keep a notice, and have it sent as the member wishes. One that is known changes nothing.

    Somebody erased, or whom identity does not know, is told nothing; somebody suspended finds it in
    the app when they are back.
    """
    member = await people.share_member(conn, notice.member_id)
    if member is None or member.status == "erased" or notice.created_at < now - KEPT:
        return
    if not await store.insert_notice(conn, notice):
        return
    if member.status != "active" or notice.created_at < now - STALE:
        return
    preferences = await store.get_preferences(conn, notice.member_id)
    if email_on and preferences.email == "each" and member.email is not None:
        await store.insert_deliveries(
            conn, notice, "email", [(new_id(), None)], day_max=DELIVERIES_PER_DAY_MAX, now=now
        )
    if push_on and preferences.push:
        subscriptions = await store.list_subscriptions(conn, notice.member_id)
        await store.insert_deliveries(
            conn,
            notice,
            "push",
            [(new_id(), each.subscription_id) for each in subscriptions],
            day_max=DELIVERIES_PER_DAY_MAX,
            now=now,
        )


async def read_notice(conn: Conn, member_id: UUID, notice_id: UUID, now: datetime) -> Notice:
    """Raises Problem 404, also for somebody else's."""
    notice = await store.mark_read(conn, member_id=member_id, notice_id=notice_id, now=now)
    if notice is None:
        raise not_found("notice")
    return notice


async def choose(conn: Conn, member_id: UUID, preferences: Preferences) -> Preferences:
    """Raises Problem 404 for somebody who was erased meanwhile."""
    member = await people.share_member(conn, member_id)
    if member is None or member.status == "erased":
        raise not_found("member")
    await store.save_preferences(conn, member_id, preferences)
    return preferences


async def subscribe(conn: Conn, subscription: Subscription) -> Subscription:
    """A browser more; beyond the most that are kept, the oldest goes. The endpoint belongs to who
    subscribed last: a browser serves one person at a time.

    Raises Problem 404 for somebody who was erased meanwhile, 409 `subscription_exists` when the id
    is taken.
    """
    # The member's row orders two that come at once, so that the bound holds.
    member = await people.lock_member(conn, subscription.member_id)
    if member is None or member.status == "erased":
        raise not_found("member")
    try:
        async with conn.transaction():
            await store.insert_subscription(conn, subscription)
    except asyncpg.UniqueViolationError as error:
        raise conflict(
            "subscription_exists",
            "There is a subscription of that id or address.",
            field="body.subscription_id",
        ) from error
    known = await store.list_subscriptions(conn, subscription.member_id)
    for oldest in known[: max(0, len(known) - SUBSCRIPTIONS_MAX)]:
        await store.delete_subscription(conn, oldest.subscription_id, oldest.member_id)
    return subscription


async def unsubscribe(conn: Conn, member_id: UUID, subscription_id: UUID) -> Subscription:
    """Raises Problem 404, also for somebody else's."""
    subscription = await store.delete_subscription(conn, subscription_id, member_id)
    if subscription is None:
        raise not_found("subscription")
    return subscription


async def make_digests(pool: Pool, now: datetime) -> int:
    """The e-mails of the day for every time zone in which it is 18:00 or later; how many.

    Done again it makes none twice, and several workers may do it at once.
    """
    made = 0
    async with pool.acquire() as conn:
        timezones = await store.list_timezones(conn)
    for timezone in timezones:
        day = digest_due(timezone, now)
        if day is not None:
            made += await make_digests_of(pool, timezone, day, now)
    return made


async def make_digests_of(pool: Pool, timezone: str, day: DigestDay, now: datetime) -> int:
    made = 0
    for _ in range(DIGEST_BATCHES_MAX):  # more than that waits for the next round
        async with pool.acquire() as conn, conn.transaction():
            members = await store.members_for_digest(
                conn, timezone, day, default_email=Preferences().email, limit=DIGEST_BATCH
            )
            for member_id in sorted(members):
                made += await store.insert_digest(conn, new_id(), member_id, day, now)
        if len(members) < DIGEST_BATCH:
            break
    return made


async def tidy_up(conn: Conn, now: datetime, *, rows_max: int) -> None:
    """Forget what is kept no longer, a bounded number at a time."""
    await store.delete_old(
        conn,
        notices_before=now - KEPT,
        deliveries_before=now - DELIVERIES_KEPT,
        rows_max=rows_max,
    )
