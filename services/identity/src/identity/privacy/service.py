"""Export and erasure of a member. Each runs in the transaction of the connection it is given."""

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from common import idempotency
from common.db import Conn
from common.problems import Problem, conflict, forbidden, not_found
from identity import events, service
from identity import store as people
from identity.cards import service as cards
from identity.domain import Actor, Member, sees_member
from identity.notices import store as notices
from identity.privacy import store


async def export(conn: Conn, actor: Actor, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All that identity keeps of a member, by table, for that member alone.

    Raises Problem 404, and 403 for who may see the member but is another.
    """
    if actor.id != member_id or actor.kind != "member":
        member = await people.get_member(conn, member_id)
        if member is None or not sees_member(actor, member):
            raise not_found("member")
        raise forbidden("Only the member may have this.")
    return {
        **await store.export_of(conn, member_id),
        **await notices.export_of(conn, member_id),
    }


async def erase(
    conn: Conn, actor: Actor, member_id: UUID, *, proven_hash: str | None, now: datetime
) -> Member:
    """Forget a member: name, login, rights, notices; their cards open nothing any more.

    The id stays, for the books of the city refer to it. Done again it changes nothing.
    `proven_hash`: the stored hash that the actor's own password was found to match.
    Raises Problem 404, 403 (also `wrong_password`), 409 `last_federation_admin`, `last_steward`.
    """
    member = await people.lock_member(conn, member_id)
    if member is None or not sees_member(actor, member):
        raise not_found("member")
    if actor.id != member_id and not actor.is_federation_admin:
        raise forbidden("Only the member, or a federation admin, may do this.")
    if member.status == "erased":
        return member
    if actor.id == member_id and (
        proven_hash is None or proven_hash != await people.get_password_hash(conn, member_id)
    ):
        raise Problem(403, "wrong_password", "This is not your password.", field="body.password")
    await service.keep_one_federation_admin(conn, member)
    await keep_one_steward(conn, member)
    await cards.forget(conn, member_id, now)
    await store.delete_logins(conn, member_id)
    await notices.forget(conn, member_id)
    await idempotency.forget(conn, caller=str(member_id), ids=[member_id])
    erased = replace(
        member,
        display_name="",
        email=None,
        status="erased",
        roles=frozenset(),
        places={},
        version=member.version + 1,
    )
    await store.erase_member(conn, member_id, erased.version)
    await events.member_changed(conn, erased, now)
    return erased


async def keep_one_steward(conn: Conn, member: Member) -> None:
    """Raises Problem 409 when a city would be left without an active steward.

    The lock makes two such changes at once see each other.
    """
    if member.city_id is None or "steward" not in member.roles or member.status != "active":
        return
    await store.lock_city(conn, member.city_id)
    if not await store.has_other_steward(conn, member.city_id, member.member_id):
        raise conflict(
            "last_steward", "The city needs an active steward: let another take over first."
        )
