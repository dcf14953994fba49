"""The commands: load and lock, decide in the domain, save, add the event.

Every function runs in the transaction of the connection that it is given, and raises Problem with
nothing changed when the answer is no.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

import asyncpg

from common.db import Conn, Pool
from common.problems import Problem, conflict, forbidden, invalid, not_found
from identity import domain, events, store
from identity.domain import Actor, City, Client, Member, Organisation, Reader, Refusal
from identity.vault import Vault, sha256_hex

PLACE_POLL_S = 0.1
PLACE_POLLS_MAX = 20

# status, what is said, and the field at fault. The code of the problem is the refusal's value.
REFUSALS: Mapping[Refusal, tuple[int, str, str | None]] = {
    Refusal.FEDERATION_ROLE_REQUIRED: (
        403,
        "Only a federation admin gives federation roles.",
        "body.roles",
    ),
    Refusal.FEDERATION_MEMBER_PROTECTED: (
        403,
        "This member serves the federation: only a federation admin changes that.",
        None,
    ),
    Refusal.UNKNOWN_ROLE: (422, "There is no such role, or it cannot be given here.", "body.roles"),
    Refusal.CITY_REQUIRED: (
        422,
        "City roles and places need a city, and this account has none.",
        "body.roles",
    ),
    Refusal.UNKNOWN_PLACE: (
        422,
        "A place is not in your city, or identity has not heard of it yet.",
        "body.places",
    ),
    Refusal.TOO_MANY_PLACES: (
        422,
        f"A member has at most {domain.PLACES_PER_MEMBER_MAX} places.",
        "body.places",
    ),
    Refusal.LAST_FEDERATION_ADMIN: (409, "The federation needs one active admin.", None),
    Refusal.MEMBER_NOT_ACTIVE: (409, "The member is not active.", None),
    Refusal.MEMBER_WITHOUT_CITY: (409, "Somebody without a city carries no card.", None),
    Refusal.MEMBER_ERASED: (409, "The member was erased.", None),
    Refusal.CARD_REPLACED: (409, "The card was replaced by another.", None),
    Refusal.READER_REVOKED: (409, "The reader was revoked.", None),
    Refusal.CLIENT_REVOKED: (409, "The client was revoked.", None),
}


def enforce(refusal: Refusal | None, what: str) -> None:
    """Raise the Problem that a refusal means; None passes."""
    match refusal:
        case None:
            return
        case Refusal.NOT_FOUND:
            raise not_found(what)
        case Refusal.FORBIDDEN:
            raise forbidden()
        case _:
            status, detail, field = REFUSALS[refusal]
            raise Problem(status, refusal.value, detail, field=field)


async def require_city(conn: Conn, city_id: str) -> City:
    """Raises Problem 422 for a city that does not exist or left the federation."""
    city = await store.get_city(conn, city_id)
    if city is None or city.status != "active":
        raise invalid("body.city_id", "There is no such city.", "unknown_city")
    return city


async def load_actor(pool: Pool, principal_id: str, kind: str) -> Actor | None:
    """Who asks, as they are now: a role taken away, or a suspension, counts at once here.

    None for somebody who is no more, or who is suspended.
    """
    try:
        actor_id = UUID(principal_id)
    except ValueError:
        return None
    async with pool.acquire() as conn:
        if kind == "service":
            client = await store.get_client(conn, actor_id)
            if client is None or client.status != "active":
                return None
            return Actor(actor_id, kind, client.city_id, client.roles)
        member = await store.get_member(conn, actor_id)
        if member is None or member.status != "active":
            return None
        return Actor(actor_id, kind, member.city_id, member.all_roles)


# Cities


async def create_city(
    conn: Conn, actor: Actor, *, city_id: str, name: str, timezone: str, now: datetime
) -> City:
    """Raises Problem 403, and 409 `city_exists`."""
    enforce(None if actor.is_federation_admin else Refusal.FORBIDDEN, "city")
    city = City(city_id, name, timezone, "active", 1, now)
    if not await store.insert_city(conn, city):
        raise conflict("city_exists", "There is a city of that id.", field="body.city_id")
    await events.city_changed(conn, city, now)
    return city


# Members


async def create_member(
    conn: Conn,
    actor: Actor,
    *,
    member_id: UUID,
    city_id: str | None,
    display_name: str,
    email: str | None,
    password_hash: str | None,
    now: datetime,
) -> Member:
    """A new, active member without roles. `email` is normalised.

    Raises Problem 403, 422 `unknown_city`, 409 `member_exists` and `email_taken`.
    """
    enforce(domain.refuse_management(actor, city_id, "steward"), "city")
    if city_id is not None:
        await require_city(conn, city_id)
    member = Member(
        member_id=member_id,
        city_id=city_id,
        display_name=display_name,
        email=email,
        status="active",
        roles=frozenset(),
        places={},
        version=1,
        created_at=now,
    )
    await insert_member(conn, member, password_hash)
    await events.member_changed(conn, member, now)
    return member


async def insert_member(conn: Conn, member: Member, password_hash: str | None) -> None:
    """Raises Problem 409 `email_taken` and `member_exists`."""
    try:
        await store.insert_member(conn, member, password_hash)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "member_email_unique":
            raise conflict(
                "email_taken", "Another login has this address.", field="body.email"
            ) from error
        raise conflict(
            "member_exists", "There is a member of that id.", field="body.member_id"
        ) from error


async def read_member(conn: Conn, actor: Actor, member_id: UUID) -> Member:
    """Raises Problem 404, also for one whom the actor may not see."""
    member = await store.get_member(conn, member_id)
    if member is None or not domain.sees_member(actor, member):
        raise not_found("member")
    return member


async def change_status(
    conn: Conn, actor: Actor, member_id: UUID, *, status: str, now: datetime
) -> Member:
    """Suspend or reinstate. A suspension ends every login of the member.

    Raises Problem 404, 403, 409 `last_federation_admin` and `member_erased`.
    """
    member = await store.lock_member(conn, member_id)
    if member is None:
        raise not_found("member")
    enforce(domain.refuse_status_change(actor, member), "member")
    if member.status == status:
        return member
    if status == "suspended":
        await keep_one_federation_admin(conn, member)
        await store.revoke_families(conn, member_id, "suspended", now)
    changed = replace(member, status=status, version=member.version + 1)
    await store.update_member(conn, changed)
    await events.member_changed(conn, changed, now)
    return changed


async def set_roles(
    conn: Conn,
    actor: Actor,
    member_id: UUID,
    *,
    roles: frozenset[str],
    places: Mapping[str, str],
    now: datetime,
) -> Member:
    """Give a member exactly these roles and places; `member` itself goes without saying.

    Raises Problem 404, 403, 422 and 409 as `domain.refuse_roles` decides.
    """
    member = await store.lock_member(conn, member_id)
    if member is None:
        raise not_found("member")
    roles = roles - {domain.MEMBER_ROLE}
    place_cities = await store.cities_of_places(conn, [UUID(place) for place in places])
    enforce(domain.refuse_roles(actor, member, roles, places, place_cities), "member")
    if "federation_admin" in member.roles - roles:
        await keep_one_federation_admin(conn, member)
    if (roles, places) == (member.roles, member.places):
        return member
    changed = replace(member, roles=roles, places=places, version=member.version + 1)
    await store.update_member(conn, changed)
    await events.member_changed(conn, changed, now)
    return changed


async def keep_one_federation_admin(conn: Conn, member: Member) -> None:
    """Raises Problem 409 when the federation would be left without an active admin.

    The lock makes two such changes at once see each other.
    """
    if "federation_admin" not in member.roles or member.status != "active":
        return
    await store.lock_federation(conn)
    if not await store.has_other_federation_admin(conn, member.member_id):
        enforce(Refusal.LAST_FEDERATION_ADMIN, "member")


async def change_password(
    conn: Conn,
    actor: Actor,
    *,
    old_hash: str | None,
    matches: bool,
    new_hash: str,
    now: datetime,
) -> Member:
    """Set the own password and end every login. `matches`: whether the current one was right.

    Raises Problem 403 `wrong_password`, 404 for a service.
    """
    member = await store.lock_member(conn, actor.id)
    if member is None:
        raise not_found("member")
    changed = matches and await store.set_password_hash(conn, actor.id, old=old_hash, new=new_hash)
    if not changed:
        raise Problem(
            403, "wrong_password", "The current password is wrong.", field="body.current_password"
        )
    await store.revoke_families(conn, actor.id, "password", now)
    return member


async def await_places(pool: Pool, place_ids: Sequence[UUID]) -> None:
    """Give the news of a place made a moment ago up to 2 seconds to arrive from places.

    Holds no connection while it waits.
    """
    for _ in range(PLACE_POLLS_MAX):
        async with pool.acquire() as conn:
            known = await store.cities_of_places(conn, place_ids)
        if len(known) == len(set(place_ids)):
            return
        await asyncio.sleep(PLACE_POLL_S)


# Organisations


async def create_organisation(
    conn: Conn,
    actor: Actor,
    *,
    organisation_id: UUID,
    city_id: str,
    name: str,
    kind: str,
    now: datetime,
) -> Organisation:
    """Raises Problem 403, 422 `unknown_city`, 409 `organisation_exists`."""
    enforce(domain.refuse_management(actor, city_id, "steward"), "city")
    await require_city(conn, city_id)
    organisation = Organisation(organisation_id, city_id, name, kind, now)
    if not await store.insert_organisation(conn, organisation):
        raise conflict(
            "organisation_exists",
            "There is an organisation of that id.",
            field="body.organisation_id",
        )
    return organisation


async def read_organisation(conn: Conn, actor: Actor, organisation_id: UUID) -> Organisation:
    """Raises Problem 404, also for another city's."""
    organisation = await store.get_organisation(conn, organisation_id)
    if organisation is None or not actor.manages(organisation.city_id, "steward"):
        raise not_found("organisation")
    return organisation


# Readers


async def create_reader(
    conn: Conn, actor: Actor, vault: Vault, *, reader_id: UUID, city_id: str, now: datetime
) -> Reader:
    """Raises Problem 403, 422 `unknown_city`, 409 `reader_exists`."""
    enforce(domain.refuse_management(actor, city_id, "steward", "operator"), "city")
    await require_city(conn, city_id)
    secret = vault.machine_secret("reader", reader_id, 1)
    reader = Reader(reader_id, city_id, sha256_hex(secret), 1, "active", 1, now)
    if not await store.insert_reader(conn, reader):
        raise conflict("reader_exists", "There is a reader of that id.", field="body.reader_id")
    await events.reader_changed(conn, reader, now)
    return reader


async def lock_own_reader(conn: Conn, actor: Actor, reader_id: UUID) -> Reader:
    """Raises Problem 404, also for another city's, and 403."""
    reader = await store.lock_reader(conn, reader_id)
    if reader is None or not actor.manages(reader.city_id, "steward", "operator"):
        raise not_found("reader")
    return reader


async def rotate_reader(
    conn: Conn, actor: Actor, vault: Vault, reader_id: UUID, *, now: datetime
) -> Reader:
    """A new secret; the old one ends. Raises Problem 404, 409 `reader_revoked`."""
    reader = await lock_own_reader(conn, actor, reader_id)
    if reader.status == "revoked":
        enforce(Refusal.READER_REVOKED, "reader")
    generation = reader.generation + 1
    secret = vault.machine_secret("reader", reader_id, generation)
    changed = replace(
        reader,
        generation=generation,
        key_sha256=sha256_hex(secret),
        version=reader.version + 1,
    )
    await store.update_reader(conn, changed)
    await events.reader_changed(conn, changed, now)
    return changed


async def revoke_reader(conn: Conn, actor: Actor, reader_id: UUID, *, now: datetime) -> Reader:
    """For ever; a revoked one stays so. Raises Problem 404."""
    reader = await lock_own_reader(conn, actor, reader_id)
    if reader.status == "revoked":
        return reader
    changed = replace(reader, status="revoked", version=reader.version + 1)
    await store.update_reader(conn, changed)
    await events.reader_changed(conn, changed, now)
    return changed


# Service clients


async def create_client(
    conn: Conn,
    actor: Actor,
    vault: Vault,
    *,
    client_id: UUID,
    name: str,
    city_id: str | None,
    roles: frozenset[str],
    audiences: tuple[str, ...],
    now: datetime,
) -> Client:
    """Raises Problem 403, 422 and 409 `client_exists`."""
    enforce(None if actor.is_federation_admin else Refusal.FORBIDDEN, "client")
    enforce(domain.refuse_client_roles(city_id, roles), "client")
    if city_id is not None:
        await require_city(conn, city_id)
    secret_sha256 = sha256_hex(vault.machine_secret("client", client_id, 1))
    client = Client(client_id, name, city_id, roles, audiences, secret_sha256, 1, "active", now)
    if not await store.insert_client(conn, client):
        raise conflict("client_exists", "There is a client of that id.", field="body.client_id")
    return client


async def change_client(
    conn: Conn, actor: Actor, vault: Vault, client_id: UUID, *, revoke: bool
) -> Client:
    """Revoke a client, or give it a new secret. Raises Problem 403, 404, 409 `client_revoked`."""
    enforce(None if actor.is_federation_admin else Refusal.FORBIDDEN, "client")
    client = await store.lock_client(conn, client_id)
    if client is None:
        raise not_found("client")
    if client.status == "revoked":
        enforce(None if revoke else Refusal.CLIENT_REVOKED, "client")
        return client
    if revoke:
        changed = replace(client, status="revoked")
    else:
        generation = client.generation + 1
        secret = vault.machine_secret("client", client_id, generation)
        changed = replace(client, generation=generation, secret_sha256=sha256_hex(secret))
    await store.update_client(conn, changed)
    return changed
