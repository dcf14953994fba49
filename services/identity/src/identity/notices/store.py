"""The SQL about notices, preferences and what is sent out."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from identity.notices.domain import (
    ChannelName,
    Delivery,
    DigestDay,
    Next,
    Notice,
    Preferences,
    Subscription,
)

NOTICE = "notice_id, member_id, kind, subject, created_at, read_at"
SUBSCRIPTION = "subscription_id, member_id, endpoint, p256dh, auth, created_at"
DELIVERY = (
    "delivery_id, member_id, channel, notice_id, subscription_id, digest_on, attempts, created_at"
)
# Of a day's e-mail: $2 since, $3 until. Unread, and nothing outside the app has told of it.
NOT_YET_TOLD = (
    "n.read_at IS NULL AND n.digest_id IS NULL AND n.created_at >= $2 AND n.created_at < $3"
    " AND NOT EXISTS (SELECT FROM notification_delivery d"
    " WHERE d.notice_id = n.notice_id AND d.channel = 'email')"
)


def to_notice(row: Mapping[str, Any]) -> Notice:
    return Notice(**row)


def to_delivery(row: asyncpg.Record) -> Delivery:
    return Delivery(**row)


# Notices


async def insert_notice(conn: Conn, notice: Notice) -> bool:
    """False when it is there already."""
    inserted = await conn.fetchval(
        "INSERT INTO notice (notice_id, member_id, kind, subject, created_at)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING true",
        notice.notice_id,
        notice.member_id,
        notice.kind,
        dict(notice.subject),
        notice.created_at,
    )
    return inserted is True


async def list_notices(
    conn: Conn, *, member_id: UUID, unread: bool | None, after: UUID | None, limit: int
) -> list[Notice]:
    """The newest first; `after`: the last of the page before. `unread` None: all of them."""
    rows = await conn.fetch(
        f"SELECT {NOTICE} FROM notice WHERE member_id = $1"  # noqa: S608 - a constant
        " AND ($2::boolean IS NULL OR (read_at IS NULL) = $2)"
        " AND ($3::uuid IS NULL OR (created_at, notice_id) <"
        " (SELECT created_at, notice_id FROM notice WHERE notice_id = $3 AND member_id = $1))"
        " ORDER BY created_at DESC, notice_id DESC LIMIT $4",
        member_id,
        unread,
        after,
        limit,
    )
    return [to_notice(row) for row in rows]


async def count_unread(conn: Conn, member_id: UUID, *, limit: int) -> int:
    """How many are unread, `limit` standing for as many or more."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM"
        " (SELECT FROM notice WHERE member_id = $1 AND read_at IS NULL LIMIT $2) AS unread",
        member_id,
        limit,
    )
    return count


async def mark_read(
    conn: Conn, *, member_id: UUID, notice_id: UUID, now: datetime
) -> Notice | None:
    """The notice, read since now or before; None when it is not the member's."""
    row = await conn.fetchrow(
        "UPDATE notice SET read_at = coalesce(read_at, $3)"  # noqa: S608 - a constant
        f" WHERE notice_id = $1 AND member_id = $2 RETURNING {NOTICE}",
        notice_id,
        member_id,
        now,
    )
    return to_notice(row) if row else None


async def mark_all_read(conn: Conn, *, member_id: UUID, now: datetime) -> int:
    """What came until now; returns how many were unread."""
    done = await conn.execute(
        "UPDATE notice SET read_at = $2"
        " WHERE member_id = $1 AND read_at IS NULL AND created_at <= $2",
        member_id,
        now,
    )
    return int(done.split()[-1])


async def notices_of(conn: Conn, delivery: Delivery) -> list[Notice]:
    """What a delivery is about and is still unread, the newest first."""
    rows = await conn.fetch(
        f"SELECT {NOTICE} FROM notice"  # noqa: S608 - a constant
        " WHERE member_id = $1 AND read_at IS NULL AND (notice_id = $2 OR digest_id = $3)"
        " ORDER BY created_at DESC, notice_id DESC",
        delivery.member_id,
        delivery.notice_id,
        delivery.delivery_id,
    )
    return [to_notice(row) for row in rows]


async def delete_old(
    conn: Conn, *, notices_before: datetime, deliveries_before: datetime, rows_max: int
) -> None:
    """Forget, a bounded number at a time, what is kept no longer."""
    await conn.execute(
        "DELETE FROM notice WHERE notice_id IN"
        " (SELECT notice_id FROM notice WHERE created_at < $1 LIMIT $2)",
        notices_before,
        rows_max,
    )
    await conn.execute(
        "DELETE FROM notification_delivery WHERE delivery_id IN"
        " (SELECT delivery_id FROM notification_delivery WHERE ended_at < $1 LIMIT $2)",
        deliveries_before,
        rows_max,
    )


# Preferences and subscriptions


async def get_preferences(conn: Conn, member_id: UUID) -> Preferences:
    """The member's choice, or what holds for who never chose."""
    row = await conn.fetchrow(
        "SELECT email, push, language FROM notification_preference WHERE member_id = $1",
        member_id,
    )
    return Preferences(**row) if row else Preferences()


async def save_preferences(conn: Conn, member_id: UUID, preferences: Preferences) -> None:
    await conn.execute(
        "INSERT INTO notification_preference (member_id, email, push, language)"
        " VALUES ($1, $2, $3, $4) ON CONFLICT (member_id) DO UPDATE"
        " SET email = EXCLUDED.email, push = EXCLUDED.push, language = EXCLUDED.language",
        member_id,
        preferences.email,
        preferences.push,
        preferences.language,
    )


async def list_subscriptions(conn: Conn, member_id: UUID) -> list[Subscription]:
    """The oldest first; there are few."""
    rows = await conn.fetch(
        f"SELECT {SUBSCRIPTION} FROM push_subscription"  # noqa: S608 - a constant
        " WHERE member_id = $1 ORDER BY created_at, subscription_id",
        member_id,
    )
    return [Subscription(**row) for row in rows]


async def insert_subscription(conn: Conn, subscription: Subscription) -> None:
    """A browser has one subscription: what was known of its endpoint goes first.

    Raises asyncpg.UniqueViolationError when the id is taken.
    """
    await conn.execute("DELETE FROM push_subscription WHERE endpoint = $1", subscription.endpoint)
    await conn.execute(
        f"INSERT INTO push_subscription ({SUBSCRIPTION})"  # noqa: S608 - a constant
        " VALUES ($1, $2, $3, $4, $5, $6)",
        subscription.subscription_id,
        subscription.member_id,
        subscription.endpoint,
        subscription.p256dh,
        subscription.auth,
        subscription.created_at,
    )


async def delete_subscription(
    conn: Conn, subscription_id: UUID, member_id: UUID
) -> Subscription | None:
    """None when it is not the member's. What waited to be sent there goes with it."""
    row = await conn.fetchrow(
        "DELETE FROM push_subscription"  # noqa: S608 - a constant
        f" WHERE subscription_id = $1 AND member_id = $2 RETURNING {SUBSCRIPTION}",
        subscription_id,
        member_id,
    )
    return Subscription(**row) if row else None


# Deliveries


async def insert_deliveries(
    conn: Conn,
    notice: Notice,
    channel: ChannelName,
    ids: Sequence[tuple[UUID, UUID | None]],
    *,
    day_max: int,
    now: datetime,
) -> int:
    """Messages about one notice, one for each (delivery id, subscription id); returns how many.

    None beyond `day_max` of the channel to the member within the last 24 hours.
    """
    rows = await conn.fetch(
        "INSERT INTO notification_delivery"
        " (delivery_id, member_id, channel, notice_id, subscription_id, status, next_at,"
        " created_at)"
        " SELECT id, $1, $2, $3, subscription, 'waiting', $4, $4"
        " FROM unnest($5::uuid[], $6::uuid[]) AS new (id, subscription)"
        " WHERE (SELECT count(*) FROM notification_delivery"
        " WHERE member_id = $1 AND channel = $2"
        " AND created_at > $4::timestamptz - interval '24 hours') < $7"
        " ON CONFLICT DO NOTHING RETURNING delivery_id",
        notice.member_id,
        channel,
        notice.notice_id,
        now,
        [delivery_id for delivery_id, _ in ids],
        [subscription for _, subscription in ids],
        day_max,
    )
    return len(rows)


async def list_timezones(conn: Conn) -> list[str]:
    """The time zones in which members live; the federation's own staff have none."""
    rows = await conn.fetch("SELECT DISTINCT timezone FROM city ORDER BY timezone")
    return [row["timezone"] for row in rows]


async def members_for_digest(
    conn: Conn, timezone: str, day: DigestDay, *, default_email: str, limit: int
) -> list[UUID]:
    """Active members of a time zone who want the e-mail of this day, and have news that nothing
    has told them outside the app yet."""
    rows = await conn.fetch(
        "SELECT DISTINCT n.member_id FROM notice n"  # noqa: S608 - a constant
        " JOIN member m USING (member_id) JOIN city c USING (city_id)"
        " LEFT JOIN notification_preference p USING (member_id)"
        " WHERE c.timezone = $1 AND m.status = 'active' AND m.email IS NOT NULL"
        " AND coalesce(p.email, $5) = 'daily'"
        f" AND {NOT_YET_TOLD}"
        " AND NOT EXISTS (SELECT FROM notification_delivery d"
        " WHERE d.member_id = n.member_id AND d.digest_on = $4)"
        " LIMIT $6",
        timezone,
        day.since,
        day.until,
        day.on,
        default_email,
        limit,
    )
    return [row["member_id"] for row in rows]


async def insert_digest(
    conn: Conn, delivery_id: UUID, member_id: UUID, day: DigestDay, now: datetime
) -> bool:
    """The e-mail of a day with its notices; False when another worker made it."""
    inserted = await conn.fetchval(
        "INSERT INTO notification_delivery"
        " (delivery_id, member_id, channel, digest_on, status, next_at, created_at)"
        " VALUES ($1, $2, 'email', $3, 'waiting', $4, $4) ON CONFLICT DO NOTHING RETURNING true",
        delivery_id,
        member_id,
        day.on,
        now,
    )
    if inserted is None:
        return False
    await conn.execute(
        "UPDATE notice n SET digest_id = $1"  # noqa: S608 - a constant
        f" WHERE n.member_id = $4 AND {NOT_YET_TOLD}",
        delivery_id,
        day.since,
        day.until,
        member_id,
    )
    return True


async def claim_due(
    conn: Conn, *, now: datetime, lease_until: datetime, limit: int
) -> list[Delivery]:
    """Take messages whose time has come: nobody else takes them before `lease_until`."""
    rows = await conn.fetch(
        "UPDATE notification_delivery SET attempts = attempts + 1, next_at = $2"  # noqa: S608 - a constant
        " WHERE delivery_id IN (SELECT delivery_id FROM notification_delivery"
        " WHERE status = 'waiting' AND next_at <= $1 ORDER BY next_at LIMIT $3"
        f" FOR UPDATE SKIP LOCKED) RETURNING {DELIVERY}",
        now,
        lease_until,
        limit,
    )
    return [to_delivery(row) for row in rows]


async def get_subscription(conn: Conn, subscription_id: UUID | None) -> Subscription | None:
    row = await conn.fetchrow(
        f"SELECT {SUBSCRIPTION} FROM push_subscription"  # noqa: S608 - a constant
        " WHERE subscription_id = $1",
        subscription_id,
    )
    return Subscription(**row) if row else None


async def save_outcome(conn: Conn, delivery: Delivery, next: Next, now: datetime) -> None:
    """Unless another worker has taken the message since: then its outcome counts."""
    await conn.execute(
        "UPDATE notification_delivery SET status = $3, next_at = $4, last_error = $5,"
        " ended_at = CASE WHEN $4::timestamptz IS NULL THEN $6::timestamptz END"
        " WHERE delivery_id = $1 AND attempts = $2 AND status = 'waiting'",
        delivery.delivery_id,
        delivery.attempts,
        next.status,
        next.next_at,
        next.last_error,
        now,
    )


async def count_waiting(conn: Conn) -> dict[str, int]:
    """How many messages wait, by channel."""
    rows = await conn.fetch(
        "SELECT channel, count(*) AS waiting FROM notification_delivery"
        " WHERE status = 'waiting' GROUP BY channel"
    )
    return {row["channel"]: row["waiting"] for row in rows}


async def list_failed(conn: Conn, limit: int) -> list[dict[str, Any]]:
    """What was refused or given up, the newest first: by whom it was awaited, not where it went."""
    rows = await conn.fetch(
        "SELECT delivery_id, member_id, channel, status, attempts, last_error, created_at,"
        " ended_at FROM notification_delivery WHERE status IN ('refused', 'given_up')"
        " ORDER BY ended_at DESC LIMIT $1",
        limit,
    )
    return [dict(row) for row in rows]


async def retry_failed(conn: Conn, ids: Sequence[UUID] | None, now: datetime) -> int:
    """Try given-up and refused messages once more from the beginning (None: all given up)."""
    done = await conn.execute(
        "UPDATE notification_delivery SET status = 'waiting', attempts = 0, next_at = $1,"
        " ended_at = NULL WHERE CASE WHEN $2::uuid[] IS NULL THEN status = 'given_up'"
        " ELSE status IN ('given_up', 'refused') AND delivery_id = ANY ($2) END",
        now,
        list(ids) if ids is not None else None,
    )
    return int(done.split()[-1])


async def last_email_failed(conn: Conn, member_id: UUID) -> bool:
    """Whether the last e-mail to the member did not get through for good."""
    status: str | None = await conn.fetchval(
        "SELECT status FROM notification_delivery WHERE member_id = $1 AND channel = 'email'"
        " AND status IN ('sent', 'refused', 'given_up') ORDER BY ended_at DESC LIMIT 1",
        member_id,
    )
    return status in ("refused", "given_up")


async def forget(conn: Conn, member_id: UUID) -> None:
    """Everything of a member: what they were told, how, and where."""
    for table in (
        "notification_delivery",
        "notice",
        "push_subscription",
        "notification_preference",
    ):
        await conn.execute(
            f"DELETE FROM {table} WHERE member_id = $1",  # noqa: S608 - constants of this module
            member_id,
        )


async def export_of(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """Everything of a member, by table. Of a browser's address only its host is told: the rest is
    a secret between it and us."""
    preferences = await conn.fetch(
        "SELECT email, push, language FROM notification_preference WHERE member_id = $1", member_id
    )
    notices = await conn.fetch(
        "SELECT notice_id, kind, subject, created_at, read_at FROM notice"
        " WHERE member_id = $1 ORDER BY created_at, notice_id",
        member_id,
    )
    deliveries = await conn.fetch(
        "SELECT delivery_id, channel, notice_id, digest_on, status, attempts, last_error,"
        " created_at, ended_at FROM notification_delivery"
        " WHERE member_id = $1 ORDER BY created_at, delivery_id",
        member_id,
    )
    subscriptions = await conn.fetch(
        "SELECT subscription_id, split_part(endpoint, '/', 3) AS push_service, created_at"
        " FROM push_subscription WHERE member_id = $1 ORDER BY created_at, subscription_id",
        member_id,
    )
    return {
        "notification_preferences": [dict(row) for row in preferences],
        "notices": [dict(row) for row in notices],
        "notification_deliveries": [dict(row) for row in deliveries],
        "push_subscriptions": [dict(row) for row in subscriptions],
    }
