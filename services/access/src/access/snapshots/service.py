"""A reader asks: what may I decide alone, and what changed since?"""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from access.events import PROJECTED
from access.snapshots import store
from access.snapshots.domain import Door, Terms, Version, is_due
from access.snapshots.store import Reader
from common.clock import Clock
from common.db import Conn, Pool
from common.problems import Problem, forbidden, not_found, unauthenticated
from copass_tap.snapshots import CHANGES, ENTRY_BYTES, write_paper, write_snapshot

TOPICS = tuple(topic.name for topic in PROJECTED)
Sign = Callable[[bytes], bytes]

EXTRAS_MAX = 50_000
# No sequence has more rows than a consumer's batch (500), so two of these hold at least one whole.
CHANGES_MAX = 1000
WAIT_S_MAX = 30
# Between two looks of one who waits: many readers wait for the same news.
LOOK_AGAIN_S = 0.25
LOOK_ANYWAY_S = 5.0
GONE_CHECK_S = 1.0
WAITING_MAX = 5000
# A snapshot of a million cards takes some 100 MB while it is made.
MAKING_MAX = 2


@dataclass(slots=True)
class Desk:
    """What the API keeps between requests: who waits, and how many snapshots are being made."""

    news: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    making: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAKING_MAX))

    def tell(self) -> None:
        """Wake all who wait."""
        self.news.set()
        self.news = asyncio.Event()


async def check_reader(conn: Conn, reader_id: UUID, key_sha256: str) -> Reader:
    """Raises Problem 401 unless the reader is known, not revoked, and the key is its own."""
    reader = await store.load_reader(conn, reader_id)
    expected = reader.key_sha256 if reader is not None else ""
    if not hmac.compare_digest(key_sha256, expected) or reader is None or not reader.is_active:
        raise unauthenticated("This is not the key of a reader in service.")
    return reader


async def check_door(conn: Conn, reader: Reader, door_id: UUID) -> Door:
    """Raises Problem 404 for no such door in the reader's city, 403 for one without this reader."""
    door = await store.load_door(conn, door_id)
    if door is None or door.city_id != reader.city_id:
        raise not_found("door")
    if reader.reader_id not in door.readers:
        raise forbidden("This reader does not belong to this door.")
    return door


def not_ready() -> Problem:
    return Problem(
        503,
        "not_ready",
        "The service is still learning who may enter.",
        headers={"Retry-After": "5"},
    )


@dataclass(frozen=True, slots=True)
class Made:
    """A snapshot that was made, before it is signed."""

    version: Version
    header: Mapping[str, Any]
    entries: bytes
    extras: Mapping[str, Mapping[str, Any]]


async def make_snapshot(
    pool: Pool,
    desk: Desk,
    *,
    reader_id: UUID,
    key_sha256: str,
    door_id: UUID,
    known: Version | None,
    terms: Terms,
    sealed: str,
    now: datetime,
) -> Made | Version:
    """The snapshot that a reader is due, or the version that stays good.

    Everything is read as of one instant. It is issued as of when the tables were last known to be
    complete: those of a service that hears nothing any more grow old.
    Raises Problem 401, 403, 404, and 503 while nothing is known.
    """
    async with pool.acquire() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        reader = await check_reader(conn, reader_id, key_sha256)
        moment = await store.load_moment(conn, TOPICS)
        if moment.caught_up_at is None:
            raise not_ready()
        door = await check_door(conn, reader, door_id)
        at = int(min(moment.caught_up_at, now).timestamp())
        changed = known is not None and await store.has_changed(conn, door, known.sequence)
        if known is not None and not is_due(
            known, door, is_changed=changed, at=at, sequence=moment.sequence, terms=terms
        ):
            return known
        async with desk.making:
            entries, all_cards = await store.load_entries(conn, door, terms.cards_max)
            extras, all_extras = await store.load_extras(conn, door, now, EXTRAS_MAX)
    version = Version(moment.sequence, at, len(entries) // ENTRY_BYTES)
    header = {
        "door_id": door.door_id,
        "place_id": door.place_id,
        "reader_id": reader.reader_id,
        "sequence": moment.sequence,
        "issued_at": at,
        "expires_at": at + terms.visitors_s,
        "household_expires_at": at + terms.household_s,
        "policy_version": door.version,
        "policy": door.policy,
        "is_locked_down": door.is_locked_down,
        "is_complete": all_cards and all_extras,
        "sealed": sealed,
    }
    return Made(version, header, entries, extras)


def sign_snapshot(made: Made, sign: Sign) -> bytes:
    return write_snapshot(made.header, made.entries, made.extras, sign)


async def wait_for_changes(
    pool: Pool,
    desk: Desk,
    *,
    reader_id: UUID,
    key_sha256: str,
    door_id: UUID,
    after: int,
    wait_s: float,
    sign: Sign,
    clock: Clock,
    is_gone: Callable[[], Awaitable[bool]],
) -> bytes:
    """What lets fewer people in since `after`, signed; waits up to `wait_s` for any, unless the
    reader went away (`is_gone`).

    Raises Problem 401, 403, 404; 503 when too many wait.
    """
    if desk.waiting >= WAITING_MAX:
        raise Problem(503, "busy", "Too many wait already.", headers={"Retry-After": "10"})
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + min(wait_s, WAIT_S_MAX)
    desk.waiting += 1
    try:
        while True:
            news = desk.news
            async with (
                pool.acquire() as conn,
                conn.transaction(isolation="repeatable_read", readonly=True),
            ):
                reader = await check_reader(conn, reader_id, key_sha256)
                door = await check_door(conn, reader, door_id)
                found = await changes_since(conn, door, reader, after)
            left = give_up_at - loop.time()
            if found["is_news"] or left <= 0:
                found["issued_at"] = int(clock().timestamp())
                return write_paper(CHANGES, json.dumps(found).encode(), sign)
            look_at = min(give_up_at, loop.time() + LOOK_ANYWAY_S)
            while not news.is_set() and loop.time() < look_at:
                await wait_for_news(news, min(GONE_CHECK_S, look_at - loop.time()))
                if await is_gone():
                    give_up_at = 0.0
                    break
            await asyncio.sleep(min(LOOK_AGAIN_S, max(0.0, give_up_at - loop.time())))
    finally:
        desk.waiting -= 1


async def wait_for_news(news: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return


async def changes_since(conn: Conn, door: Door, reader: Reader, after: int) -> dict[str, Any]:
    """The paper that a reader is given. `sequence`: go on from here. `is_news`: it is not what the
    reader has. A sequence above all that this database knows starts again from nothing."""
    current = (await store.load_moment(conn, TOPICS)).sequence
    since = after if after <= current else 0
    cards = await store.withdrawn_cards(conn, since, CHANGES_MAX)
    members = await store.restricted_members(conn, door, since, CHANGES_MAX)
    upto = current
    for found in (cards, members):
        if len(found) == CHANGES_MAX:  # the last number may go on beyond what was read
            upto = min(upto, found[-1][0] - 1)
    shown_cards = [[name, status] for number, name, status in cards if number <= upto]
    shown_members = [list(rest) for number, *rest in members if number <= upto]
    is_news = bool(shown_cards or shown_members) or after > current
    return {
        "door_id": door.door_id,
        "reader_id": reader.reader_id,
        "after": after,
        "sequence": upto,
        "is_more": upto < current,
        "is_locked_down": door.is_locked_down,
        "policy_version": door.version,
        "cards": shown_cards,
        "members": shown_members,
        "is_news": is_news or max(door.sequence, door.lockdown_sequence) > after,
    }
