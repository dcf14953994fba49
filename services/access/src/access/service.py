"""What people ask of access: the history, how full a place is, a lockdown."""

from datetime import datetime
from typing import Any
from uuid import UUID

from access import live_store, store
from access.live_store import Place
from access.operators.store import Look, add_look
from access.redis_pipe import RedisPipe
from access.snapshots.store import stamp_lockdown
from access.store import Lockdown, TapRow
from access.tap import not_ready
from common.auth import Principal
from common.db import Conn, Pool
from common.export import plain
from common.idempotency import Answer, run_once
from common.ids import new_id
from common.problems import Problem, forbidden, not_found

CITY_STAFF = ("operator", "steward")


async def place_of(
    pipe: RedisPipe, principal: Principal, place_id: UUID, *, federation: bool
) -> Place:
    """A place that the caller answers for: its city's operators and stewards, and with
    `federation` the federation's admins.

    Raises Problem 403 for a caller without such a role, 404 for a place that is not there or in
    another city, 503 while that is not known yet.
    """
    is_federation = federation and principal.has("federation_admin")
    if not (is_federation or principal.has(*CITY_STAFF)):
        raise forbidden()
    place = await live_store.read_place(pipe, str(place_id))
    if place is None and not await live_store.is_ready(pipe):
        raise not_ready()
    if place is None or not (is_federation or principal.in_city(place.city_id, *CITY_STAFF)):
        raise not_found("place")
    return place


async def list_taps(
    pool: Pool,
    principal: Principal,
    *,
    place_id: UUID | None,
    member_id: UUID | None,
    since: datetime | None,
    before: UUID | None,
    limit: int,
    now: datetime,
    **filters: Any,
) -> list[TapRow]:
    """The history, newest first: one's own everywhere, or all of one's city, and then it is noted
    who looked. `filters`: the other ones of `store.list_taps`.

    Another city's taps are as absent as those that never were. Raises Problem 403 for a caller who
    asks for more than his own without answering for a city.
    """
    own = member_id is not None and str(member_id) == principal.sub
    city = None if own else principal.city
    if not own and not (city and principal.has(*CITY_STAFF)):
        raise forbidden("You may see your own taps: give your member_id.")
    async with pool.acquire() as conn, conn.transaction():
        found = await store.list_taps(
            conn,
            city_id=city,
            place_id=place_id,
            member_id=member_id,
            since=since,
            before=before,
            limit=limit,
            **filters,
        )
        if city is not None:
            asked = {"since": since, "cursor": before, **filters}
            await add_look(
                conn,
                Look(
                    look_id=new_id(),
                    looked_at=now,
                    looked_by=principal.sub,
                    city_id=city,
                    place_id=place_id,
                    member_id=member_id,
                    filters={name: plain(item) for name, item in asked.items() if item is not None},
                    taps=min(len(found), limit - 1),  # one more says that there are more
                ),
            )
        return found


async def set_lockdown(
    pool: Pool,
    pipe: RedisPipe,
    principal: Principal,
    place: Place,
    *,
    active: bool,
    reason: str,
    key: str,
    now: datetime,
) -> Answer:
    """Close a place for safety, or open it again. Kept in PostgreSQL, in force from Redis.

    Raises Problem 422 when the idempotency key came with another request, ConnectionError when
    Redis is away: the lockdown is kept then, and the worker puts it in force within seconds.
    """
    place_id = UUID(place.place_id)

    async def command(conn: Conn) -> Answer:
        lockdown = await store.save_lockdown(
            conn,
            place_id=place_id,
            city_id=place.city_id,
            active=active,
            reason=reason,
            changed_by=principal.sub,
            now=now,
        )
        await stamp_lockdown(conn, place_id)
        return Answer(200, lockdown_body(lockdown))

    answer = await run_once(
        pool,
        scope=f"{principal.sub}:PUT /v1/places/{place_id}/lockdown",
        key=key,
        request={"active": active, "reason": reason},
        now=now,
        command=command,
    )
    # The newest state, not the answer's: a repeated request must not undo a later one.
    async with pool.acquire() as conn:
        newest = await store.load_lockdown(conn, place_id)
    if newest is None:
        raise Problem(500, "internal", "Something went wrong on our side.")
    await live_store.set_lockdowns(pipe, [(str(place_id), newest.version, newest.active)])
    return answer


def lockdown_body(lockdown: Lockdown) -> dict[str, str | int | bool]:
    return {
        "place_id": str(lockdown.place_id),
        "active": lockdown.active,
        "reason": lockdown.reason,
        "version": lockdown.version,
        "changed_at": lockdown.changed_at.isoformat(),
    }
