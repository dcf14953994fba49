"""Put a pass on a phone; invite a guest, send them away.

Every function runs in the transaction of the connection that it is given, and raises Problem with
nothing changed when the answer is no.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from common.db import Conn
from common.problems import Problem, conflict, forbidden, invalid, not_found
from identity import events
from identity import store as people
from identity.cards import service as cards
from identity.cards import store as card_store
from identity.domain import Actor, Card, Malformed, Member, Refusal
from identity.passes import domain, store
from identity.passes.keys import check_public_key
from identity.service import enforce
from identity.vault import hash_credential


async def enrol(
    conn: Conn,
    actor: Actor,
    *,
    card_id: UUID,
    public_key: str,
    label: str,
    replaces: UUID | None,
    proven_hash: str | None,
    pepper: str,
    now: datetime,
) -> Card:
    """A pass on the phone that holds the private key, for the member alone.

    `proven_hash`: the stored hash that the member's own password was found to match. `replaces`: a
    phone of theirs that opens nothing any more from now on.
    Raises Problem 403 (also `wrong_password`), 404 for a phone that is not theirs, 409
    `member_without_city`, `card_replaced`, `too_many_phones`, `too_many_today`, `card_exists`, 422
    `key_malformed`.
    """
    if actor.kind != "member":
        raise forbidden("A phone belongs to a member.")
    member = await people.lock_member(conn, actor.id)
    if member is None:
        raise not_found("member")
    if proven_hash is None or proven_hash != await people.get_password_hash(conn, actor.id):
        raise Problem(403, "wrong_password", "This is not your password.", field="body.password")
    if member.city_id is None:
        enforce(Refusal.MEMBER_WITHOUT_CITY, "member")
    try:
        check_public_key(public_key)
    except Malformed as error:
        raise invalid("body.public_key", f"{error}.", "key_malformed") from error
    if replaces is not None:
        await replace_phone(conn, actor, replaces, card_id, now)
    if await store.count_phones(conn, actor.id) >= domain.PHONES_MAX:
        raise conflict(
            "too_many_phones",
            f"A member has a pass on {domain.PHONES_MAX} phones: block or replace one.",
        )
    await refuse_too_many_today(conn, member, "pass", domain.PHONES_MADE_MAX, now)
    card = new_card(
        card_id=card_id,
        holder=member,
        kind="pass",
        credential_hash=hash_credential(pepper, "pass", str(card_id)),
        mark=domain.mark_of(public_key.encode()),
        label=label,
        now=now,
    )
    card = replace(card, public_key=public_key)
    await cards.insert_card(conn, card)
    await events.card_changed(conn, card, now)
    return card


async def refuse_too_many_today(
    conn: Conn, member: Member, kind: domain.PassType, most: int, now: datetime
) -> None:
    """Raises Problem 409. The member's row is locked."""
    made = await store.count_made(conn, member.member_id, kind, now - domain.MADE_WITHIN)
    if made >= most:
        raise conflict("too_many_today", f"At most {most} are made within a day.")


async def replace_phone(
    conn: Conn, actor: Actor, old_id: UUID, new_id: UUID, now: datetime
) -> None:
    """Raises Problem 404 for what is not a phone of the actor, 409 `card_replaced`."""
    old = await card_store.lock_card(conn, old_id)
    if old is None or old.member_id != actor.id or old.credential_type != "pass":
        raise not_found("card", field="body.replaces")
    if old.status == "replaced":
        enforce(Refusal.CARD_REPLACED, "card")
    await cards.save_card(conn, replace(old, status="replaced", replaced_by=new_id), now)


async def rename(conn: Conn, actor: Actor, card_id: UUID, label: str) -> Card:
    """Give an own phone another name. Raises Problem 404 for what is not a phone of the actor."""
    card = await card_store.lock_card(conn, card_id)
    if card is None or card.member_id != actor.id or card.credential_type != "pass":
        raise not_found("card")
    await store.rename(conn, card_id, label)
    return replace(card, label=label)


async def invite(
    conn: Conn,
    actor: Actor,
    *,
    card_id: UUID,
    name: str,
    places: Sequence[UUID],
    valid_from: datetime | None,
    valid_until: datetime | None,
    secret: str,
    pepper: str,
    now: datetime,
) -> Card:
    """A pass for one guest, to places of the actor. `secret`: what the paper will say, in base32.

    Raises Problem 403 for a place that the actor may not invite to, known or not, 409
    `too_many_guests` of the host, `place_has_too_many_guests` and `too_many_today`, 422
    `invalid_validity`.
    """
    wanted = sorted(set(places))
    host = await people.lock_member(conn, actor.id) if actor.kind == "member" else None
    place_cities = await store.lock_places(conn, wanted)
    if host is None or not domain.may_invite(host, wanted, place_cities):
        raise forbidden(
            "Guests are invited by who lives or works at the place, and by the city's stewards.",
            field="body.places",
        )
    try:
        begins, ends = domain.read_validity(valid_from, valid_until, now)
    except Malformed as error:
        raise invalid("body.valid_until", f"{error}.", "invalid_validity") from error
    if await store.count_guests_of_host(conn, host.member_id, now) >= domain.GUESTS_OF_HOST_MAX:
        raise conflict(
            "too_many_guests", f"You have {domain.GUESTS_OF_HOST_MAX} guests already invited."
        )
    if await store.most_guests_of_a_place(conn, wanted, now) >= domain.GUESTS_OF_PLACE_MAX:
        raise conflict(
            "place_has_too_many_guests",
            f"A place has at most {domain.GUESTS_OF_PLACE_MAX} guests invited.",
            field="body.places",
        )
    await refuse_too_many_today(conn, host, "guest", domain.GUESTS_MADE_MAX, now)
    card = new_card(
        card_id=card_id,
        holder=host,
        kind="guest",
        credential_hash=hash_credential(pepper, "guest", secret),
        mark=domain.mark_of(secret.encode()),
        label="",
        now=now,
    )
    card = replace(card, valid_from=begins, valid_until=ends, places=tuple(wanted), guest_name=name)
    await cards.insert_card(conn, card)
    await events.card_changed(conn, card, now)
    return card


async def list_guests(
    conn: Conn,
    actor: Actor,
    *,
    place_id: UUID | None,
    after: UUID | None,
    limit: int,
    now: datetime,
) -> list[Card]:
    """One's own guests; with `place_id` all guests of a place, for its staff and the stewards.

    Raises Problem 404 for a place that the actor does not look after, known or not.
    """
    if place_id is not None:
        staff = await people.get_member(conn, actor.id) if actor.kind == "member" else None
        place_cities = await people.cities_of_places(conn, [place_id])
        if not domain.may_look_after(staff, place_id, place_cities):
            raise not_found("place")
    return await store.list_guests(
        conn,
        host_id=actor.id if place_id is None else None,
        place_id=place_id,
        ended_after=now - domain.GUEST_NAME_KEPT,
        after=after,
        limit=limit,
    )


async def revoke(conn: Conn, actor: Actor, card_id: UUID, now: datetime) -> Card:
    """A guest pass opens nothing any more. For the host, and who looks after one of its places.

    One that is revoked already stays as it is. Raises Problem 404.
    """
    card = await card_store.lock_card(conn, card_id)
    if card is None or card.credential_type != "guest" or card.places is None:
        raise not_found("guest pass")
    if card.member_id != actor.id:
        staff = await people.get_member(conn, actor.id) if actor.kind == "member" else None
        place_cities = await people.cities_of_places(conn, card.places)
        if not any(domain.may_look_after(staff, place, place_cities) for place in card.places):
            raise not_found("guest pass")
    if card.status == "blocked":
        return card
    return await cards.save_card(conn, replace(card, status="blocked", block_reason="other"), now)


async def then_guests(conn: Conn, change: Awaitable[Member], now: datetime) -> Member:
    """Change what somebody may; guests stay away from where their host may invite nobody any more.

    Raises what the change raises.
    """
    host = await change
    for card in await store.lock_guests_of_host(conn, host.member_id, now):
        place_cities = await people.cities_of_places(conn, card.places or ())
        if not domain.may_invite(host, card.places or (), place_cities):
            await cards.save_card(conn, replace(card, status="blocked", block_reason="other"), now)
    return host


async def forget_old_guests(conn: Conn, now: datetime, *, rows_max: int) -> int:
    """Forget who the guests of a month ago were, and tell the doors to forget the passes. Returns
    how many."""
    ended_before = now - domain.GUEST_NAME_KEPT
    old = await store.lock_old_guests(conn, ended_before=ended_before, rows_max=rows_max)
    for card in old:
        ended = replace(card, guest_name="", version=card.version + 1)
        await store.forget_guest(conn, ended)
        await events.card_changed(conn, ended, now, is_ended=True)
    return len(old)


def new_card(
    *,
    card_id: UUID,
    holder: Member,
    kind: domain.PassType,
    credential_hash: str,
    mark: str,
    label: str,
    now: datetime,
) -> Card:
    """An active card that is no plastic, without what it has of its own."""
    if holder.city_id is None:
        raise ValueError("a card's holder has a city")
    return Card(
        card_id=card_id,
        member_id=holder.member_id,
        city_id=holder.city_id,
        credential_type=kind,
        credential_hash=credential_hash,
        uid_tail=mark,
        label=label,
        status="active",
        block_reason=None,
        replaced_by=None,
        version=1,
        created_at=now,
    )
