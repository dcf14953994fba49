"""Give out a card, block it, let it open again, replace it, show its keys.

Every function runs in the transaction of the connection that it is given, and raises Problem with
nothing changed when the answer is no.
"""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

import asyncpg

from common.db import Conn
from common.ids import new_id
from common.problems import conflict, forbidden, invalid, not_found
from identity import domain, events
from identity import store as people
from identity.cards import store
from identity.domain import (
    NTAG_UID_DIGITS,
    Actor,
    Card,
    CredentialType,
    Malformed,
    Member,
    Refusal,
)
from identity.service import enforce
from identity.vault import hash_credential


def read_uid(uid: str, credential_type: CredentialType = "uid") -> str:
    """The normalised UID. Raises Problem 422 `uid_malformed`, which does not repeat it."""
    try:
        normal = domain.normalise_uid(uid)
        if credential_type == "ntag424" and len(normal) != NTAG_UID_DIGITS:
            raise Malformed("the UID of an NTAG 424 DNA card has 7 bytes")
    except Malformed as error:
        raise invalid("body.uid", f"{error}.", "uid_malformed") from error
    return normal


def make_card(
    *,
    card_id: UUID,
    member: Member | Card,
    credential_type: CredentialType,
    uid: str,
    label: str,
    pepper: str,
    now: datetime,
) -> Card:
    """An active card for the holder; of the normalised UID only the hash and the tail are kept."""
    if member.city_id is None:
        raise ValueError("a card's holder has a city")
    return Card(
        card_id=card_id,
        member_id=member.member_id,
        city_id=member.city_id,
        credential_type=credential_type,
        credential_hash=hash_credential(pepper, credential_type, uid),
        uid_tail=uid[-4:],
        label=label,
        status="active",
        block_reason=None,
        replaced_by=None,
        version=1,
        created_at=now,
    )


async def insert_card(conn: Conn, card: Card) -> None:
    """Raises Problem 409 `uid_in_use` and `card_exists`."""
    try:
        await store.insert_card(conn, card)
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name == "card_live_credential":
            raise conflict(
                "uid_in_use", "This UID belongs to a card that is not replaced.", field="body.uid"
            ) from error
        raise conflict(
            "card_exists", "There is a card of that id.", field="body.card_id"
        ) from error


async def issue_card(
    conn: Conn,
    actor: Actor,
    *,
    card_id: UUID,
    member_id: UUID,
    credential_type: CredentialType,
    uid: str,
    label: str,
    pepper: str,
    now: datetime,
) -> Card:
    """Raises Problem 403 for one who issues no cards, 404 for another city's member, 409."""
    if not (actor.is_federation_admin or actor.roles & {"steward", "operator"}):
        raise forbidden()
    member = await people.share_member(conn, member_id)
    if member is None:
        raise not_found("member")
    enforce(domain.refuse_card_issue(actor, member), "member")
    card = make_card(
        card_id=card_id,
        member=member,
        credential_type=credential_type,
        uid=uid,
        label=label,
        pepper=pepper,
        now=now,
    )
    await insert_card(conn, card)
    await events.card_changed(conn, card, now)
    return card


async def block_card(
    conn: Conn, actor: Actor, card_id: UUID, *, reason: str, now: datetime
) -> Card:
    """Short on purpose: doors learn of it when this transaction has ended.

    A card that is blocked already stays as it is. Raises Problem 404, 403, 409 `card_replaced`.
    """
    card = await store.lock_card(conn, card_id)
    if card is None:
        raise not_found("card")
    enforce(domain.refuse_block(actor, card), "card")
    if card.status == "blocked":
        return card
    return await save_card(conn, replace(card, status="blocked", block_reason=reason), now)


async def unblock_card(conn: Conn, actor: Actor, card_id: UUID, *, now: datetime) -> Card:
    """Raises Problem 404, 403, 409 `card_replaced`, `member_erased`."""
    card = await store.lock_card(conn, card_id)
    if card is None:
        raise not_found("card")
    enforce(domain.refuse_unblock(actor, card), "card")
    member = await people.share_member(conn, card.member_id)
    if member is None or member.status == "erased":
        enforce(Refusal.MEMBER_ERASED, "member")
    if card.status == "active":
        return card
    return await save_card(conn, replace(card, status="active", block_reason=None), now)


async def replace_card(
    conn: Conn,
    actor: Actor,
    card_id: UUID,
    *,
    new_card_id: UUID,
    credential_type: CredentialType,
    uid: str,
    label: str | None,
    pepper: str,
    now: datetime,
) -> Card:
    """A new card for the same member; the old one opens nothing any more.

    Raises Problem 404, 403, 409 `card_replaced`, `not_a_card`, `uid_in_use`, `card_exists`,
    `member_not_active`.
    """
    card = await store.lock_card(conn, card_id)
    if card is None:
        raise not_found("card")
    enforce(domain.refuse_replace(actor, card), "card")
    if card.credential_type in ("pass", "guest"):
        raise conflict("not_a_card", "A phone's or a guest's pass is blocked, not replaced.")
    member = await people.share_member(conn, card.member_id)
    if member is None or member.status != "active":
        enforce(Refusal.MEMBER_NOT_ACTIVE, "member")
    successor = make_card(
        card_id=new_card_id,
        member=card,
        credential_type=credential_type,
        uid=uid,
        label=card.label if label is None else label,
        pepper=pepper,
        now=now,
    )
    if successor.credential_hash == card.credential_hash:
        raise conflict("uid_in_use", "This is the UID of the card itself.", field="body.uid")
    await save_card(conn, replace(card, status="replaced", replaced_by=new_card_id), now)
    await insert_card(conn, successor)
    await events.card_changed(conn, successor, now)
    return successor


async def disclose_keys(
    conn: Conn, actor: Actor, card_id: UUID, *, uid: str, pepper: str, now: datetime
) -> Card:
    """Let somebody program a card, and keep who it was. `uid` is normalised.

    Raises Problem 404, 403, 409 `card_replaced`, `not_programmable`, 422 `uid_of_another_card`.
    """
    card = await store.lock_card(conn, card_id)
    if card is None:
        raise not_found("card")
    enforce(domain.refuse_replace(actor, card), "card")
    if card.credential_type != "ntag424":
        raise conflict("not_programmable", "Only an NTAG 424 DNA card has keys.")
    if card.credential_hash != hash_credential(pepper, card.credential_type, uid):
        raise invalid("body.uid", "is not the UID of this card.", "uid_of_another_card")
    await store.insert_disclosure(conn, new_id(), card_id, shown_to=str(actor.id), now=now)
    return card


async def save_card(conn: Conn, card: Card, now: datetime) -> Card:
    changed = replace(card, version=card.version + 1)
    await store.update_card(conn, changed)
    await events.card_changed(conn, changed, now)
    return changed


async def forget(conn: Conn, member_id: UUID, now: datetime) -> None:
    """Block the cards of a member and erase what could be read off them. Doors learn of it when
    this transaction has ended.
    """
    for card_id in await store.list_card_ids(conn, member_id):
        card = await store.lock_card(conn, card_id)
        if card is not None and card.status == "active":
            await save_card(conn, replace(card, status="blocked", block_reason="other"), now)
    await store.erase_cards(conn, member_id)
