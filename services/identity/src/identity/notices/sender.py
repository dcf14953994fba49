"""The worker's part: gathers the day's e-mails, sends what is due, marks what became of it.

A message is taken (committed), sent outside any transaction, then marked. A worker that dies
between the last two leaves it taken: when the lease ends another sends it again, under the same
Message-ID. So each message arrives at least once, and twice only after a crash.
"""

import asyncio
from collections.abc import Mapping

from prometheus_client import Counter, Gauge

from common.clock import Clock
from common.db import Pool
from common.logging import get_logger
from identity import store as people
from identity.notices import service, store
from identity.notices.domain import (
    ATTEMPTS_MAX,
    LEASE,
    Away,
    Channel,
    ChannelName,
    Delivery,
    Gone,
    Letter,
    Next,
    Outcome,
    judge,
    wanted,
)

AT_ONCE = 10
POLL_S = 1.0
# Without any way out there is only what was left from before to be given up.
IDLE_POLL_S = 30.0
DIGEST_EVERY_S = 30.0

DELIVERIES = Counter(
    "notification_deliveries_total", "Attempts to send a message", ["channel", "outcome"]
)
WAITING = Gauge("notification_deliveries_waiting", "Messages not yet sent", ["channel"])

log = get_logger(__name__)

Channels = Mapping[ChannelName, Channel]


async def keep_sending(pool: Pool, channels: Channels, clock: Clock) -> None:
    """The worker's task: runs until something fails, as the database being away."""
    loop = asyncio.get_running_loop()
    digest_at = loop.time()
    while True:
        if "email" in channels and loop.time() >= digest_at:
            await service.make_digests(pool, clock())
            digest_at = loop.time() + DIGEST_EVERY_S
        if await send_due(pool, channels, clock) < AT_ONCE:
            async with pool.acquire() as conn:
                waiting = await store.count_waiting(conn)
            for channel in ("email", "push"):
                WAITING.labels(channel).set(waiting.get(channel, 0))
            await asyncio.sleep(POLL_S if channels else IDLE_POLL_S)


async def send_due(pool: Pool, channels: Channels, clock: Clock) -> int:
    """Send at most AT_ONCE messages whose time has come; returns how many were taken."""
    now = clock()
    async with pool.acquire() as conn, conn.transaction():
        claimed = await store.claim_due(conn, now=now, lease_until=now + LEASE, limit=AT_ONCE)
    # All at once: the slowest must be done within the lease of all.
    await asyncio.gather(*(send_one(pool, channels, delivery, clock) for delivery in claimed))
    return len(claimed)


async def send_one(pool: Pool, channels: Channels, delivery: Delivery, clock: Clock) -> None:
    """Send one message that was taken, and mark it."""
    channel = channels.get(delivery.channel)
    if channel is None:
        await mark(pool, delivery, Next("given_up", last_error="channel_off"), clock)
        return
    if delivery.attempts > ATTEMPTS_MAX:
        # Each time the worker died with it.
        await mark(pool, delivery, Next("given_up", last_error="worker_died"), clock)
        return
    letter = await write_letter(pool, delivery, clock)
    if letter is None:
        await mark(pool, delivery, Next("dropped"), clock)
        return
    outcome = await attempt(channel, letter)
    await mark(pool, delivery, judge(delivery, outcome, clock()), clock)
    if isinstance(outcome, Gone) and letter.subscription is not None:
        subscription = letter.subscription
        async with pool.acquire() as conn:
            await store.delete_subscription(
                conn, subscription.subscription_id, subscription.member_id
            )


async def attempt(channel: Channel, letter: Letter) -> Outcome:
    """A channel promises to raise nothing; one that does has a bug, and counts as away."""
    try:
        return await channel.send(letter)
    except Exception as error:
        log.error("channel_failed", error=type(error).__name__, delivery_id=str(letter.delivery_id))
        return Away(f"failed_{type(error).__name__}"[:100])


async def write_letter(pool: Pool, delivery: Delivery, clock: Clock) -> Letter | None:
    """What is to be sent as things are now; None when there is nothing to tell any more, nobody to
    tell it to, or it is not wanted."""
    async with pool.acquire() as conn:
        member = await people.get_member(conn, delivery.member_id)
        preferences = await store.get_preferences(conn, delivery.member_id)
        notices = await store.notices_of(conn, delivery)
        subscription = await store.get_subscription(conn, delivery.subscription_id)
    if member is None or member.status != "active" or not notices:
        return None
    if not wanted(delivery, preferences):
        return None
    if delivery.channel == "email" and member.email is None:
        return None
    return Letter(
        delivery_id=delivery.delivery_id,
        language=preferences.language,
        notices=tuple(notices),
        email=member.email,
        subscription=subscription,
        now=clock(),
        is_digest=delivery.digest_on is not None,
    )


async def mark(pool: Pool, delivery: Delivery, next: Next, clock: Clock) -> None:
    async with pool.acquire() as conn:
        await store.save_outcome(conn, delivery, next, clock())
    DELIVERIES.labels(delivery.channel, next.status).inc()
    if next.status in ("refused", "given_up"):
        log.warning(
            "notification_not_delivered",
            delivery_id=str(delivery.delivery_id),
            channel=delivery.channel,
            status=next.status,
            reason=next.last_error,
        )
