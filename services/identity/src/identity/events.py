"""What identity publishes: the public state of its aggregates. No name, e-mail or card number."""

from datetime import datetime

from common import outbox
from common.db import Conn
from common.events import Topic
from identity.domain import Card, City, Member, Reader

CITIES = Topic("identity.cities.v1", compacted=True)
MEMBERS = Topic("identity.members.v1", compacted=True)
CARDS = Topic("identity.cards.v1", compacted=True)
READERS = Topic("identity.readers.v1", compacted=True)
TOPICS = (CITIES, MEMBERS, CARDS, READERS)


async def city_changed(conn: Conn, city: City, now: datetime) -> None:
    """A city's name is a public place name, not a person's."""
    await outbox.add(
        conn,
        topic=CITIES,
        key=city.city_id,
        type="identity.city.changed.v1",
        data={
            "city_id": city.city_id,
            "version": city.version,
            "name": city.name,
            "timezone": city.timezone,
            "status": city.status,
        },
        now=now,
    )


async def member_changed(conn: Conn, member: Member, now: datetime) -> None:
    """Not told of people without a city: no city's book, door or place knows them."""
    if member.city_id is None:
        return
    await outbox.add(
        conn,
        topic=MEMBERS,
        key=str(member.member_id),
        type="identity.member.changed.v1",
        data={
            "member_id": str(member.member_id),
            "version": member.version,
            "city_id": member.city_id,
            "status": member.status,
            "roles": sorted(member.all_roles),
            "places": dict(member.places),
        },
        now=now,
    )


async def card_changed(conn: Conn, card: Card, now: datetime, *, is_ended: bool = False) -> None:
    """A guest is nobody's member: their taps are told under the pass's own id, not the host's.
    `is_ended`: a guest pass is over for so long that nobody needs to know of it any more."""
    is_guest = card.credential_type == "guest"
    await outbox.add(
        conn,
        topic=CARDS,
        key=str(card.card_id),
        type="identity.card.changed.v1",
        data={
            "card_id": str(card.card_id),
            "version": card.version,
            "credential_hash": card.credential_hash,
            "credential_type": card.credential_type,
            "member_id": str(card.card_id if is_guest else card.member_id),
            "status": "ended" if is_ended else card.status,
            "public_key": card.public_key,
            "valid_from": card.valid_from.isoformat() if card.valid_from else None,
            "valid_until": card.valid_until.isoformat() if card.valid_until else None,
            "places": [str(place) for place in card.places] if card.places is not None else None,
            "host_member_id": str(card.member_id) if is_guest else None,
        },
        now=now,
    )


async def reader_changed(conn: Conn, reader: Reader, now: datetime) -> None:
    await outbox.add(
        conn,
        topic=READERS,
        key=str(reader.reader_id),
        type="identity.reader.changed.v1",
        data={
            "reader_id": str(reader.reader_id),
            "version": reader.version,
            "city_id": reader.city_id,
            "key_sha256": reader.key_sha256,
            "status": reader.status,
        },
        now=now,
    )
