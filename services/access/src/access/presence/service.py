"""Who may know how many are inside, who may know who, and who pardons a double entry."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from access import live_store
from access.live_store import Place
from access.presence import store
from access.presence.store import Reset
from access.redis_pipe import RedisPipe
from access.service import place_of
from access.tap import not_ready
from common.auth import Principal
from common.db import Conn, Pool
from common.idempotency import Answer, run_once
from common.ids import new_id
from common.problems import forbidden, not_found

# What one is to a place: who works there, and who answers for those inside.
TEAM = ("staff", "warden")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody inside. `since`: their last movement."""

    member_id: str
    zone: str | None
    since: datetime


@dataclass(frozen=True, slots=True)
class Evacuation:
    """How many are inside, by zone: all that the place has, and None for who is in none.

    `people` are there for the warden alone.
    """

    place_id: str
    at: datetime
    zones: list[tuple[str | None, int]]
    people: list[Person] | None

    @property
    def inside(self) -> int:
        return sum(count for _, count in self.zones)


async def place_and_relation(
    pipe: RedisPipe, principal: Principal, place_id: UUID
) -> tuple[Place, str | None]:
    """The place, and what the caller is to it: its team, or None for the city's operators and
    stewards. Raises Problem 403 or 404 for everybody else, 503 while it is not known yet."""
    relation = None
    if principal.kind == "member":
        relation = await live_store.relation_of(pipe, principal.sub, str(place_id))
    if relation not in TEAM:
        return await place_of(pipe, principal, place_id, federation=False), None
    if not await live_store.is_ready(pipe):
        raise not_ready()
    place = await live_store.read_place(pipe, str(place_id))
    if place is None:
        raise not_found("place")
    return place, relation


async def evacuation(
    pool: Pool,
    pipe: RedisPipe,
    principal: Principal,
    place_id: UUID,
    *,
    with_members: bool,
    now: datetime,
) -> Evacuation:
    """How many are inside; with `with_members` also who, for the warden, and kept for ever who
    looked. Raises Problem 403 for anybody else who asks who."""
    place, relation = await place_and_relation(pipe, principal, place_id)
    if with_members and relation != "warden":
        raise forbidden("Only the warden of the place sees who is inside.")
    people = [
        Person(member_id, zone if zone in place.zones else None, datetime.fromtimestamp(since, UTC))
        for member_id, since, zone in await live_store.list_inside(pipe, place.place_id, now)
    ]
    counts = Counter(person.zone for person in people)
    if with_members:
        async with pool.acquire() as conn:
            await store.insert_look(
                conn,
                look_id=new_id(),
                place_id=place_id,
                city_id=place.city_id,
                looked_by=principal.sub,
                looked_at=now,
                people=len(people),
            )
    return Evacuation(
        place_id=place.place_id,
        at=now,
        zones=[(zone, counts[zone]) for zone in (*place.zones, None)],
        people=people if with_members else None,
    )


async def reset_passback(
    pool: Pool,
    pipe: RedisPipe,
    principal: Principal,
    place_id: UUID,
    *,
    member_id: UUID | None,
    reason: str,
    key: str,
    now: datetime,
) -> Answer:
    """Hold nothing against a member, or anybody, of where they are said to be until now.

    They stay inside as far as numbers and the evacuation list go: nobody has seen them leave.
    Raises ConnectionError when Redis is away: it is kept then, and in force when tried again.
    """
    place, _ = await place_and_relation(pipe, principal, place_id)
    reset_id = new_id()

    async def command(conn: Conn) -> Answer:
        await store.insert_reset(
            conn,
            Reset(reset_id, place_id, place.city_id, member_id, reason, principal.sub, now),
        )
        body = {
            "reset_id": str(reset_id),
            "place_id": str(place_id),
            "member_id": str(member_id) if member_id is not None else None,
            "reason": reason,
            "reset_at": now.isoformat(),
        }
        return Answer(201, body)

    answer = await run_once(
        pool,
        scope=f"{principal.sub}:POST /v1/places/{place_id}/passback-resets",
        key=key,
        request={"member_id": str(member_id), "reason": reason},
        now=now,
        command=command,
    )
    # As it was first answered: a repeated request pardons no more than the first did.
    await live_store.pardon(
        pipe, place_id, member_id, datetime.fromisoformat(answer.body["reset_at"])
    )
    return answer
