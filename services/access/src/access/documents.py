"""State events of the other services → the documents that Redis keeps. Pure.

The models are tolerant readers: only the fields that are used here, whatever else is there.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from access.events import CARDS, MEMBERS, PLACES, READERS, STANDINGS

# Ids and words become parts of keys and of documents that are split at spaces.
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Version = Annotated[int, Field(ge=0, le=2**53 - 1)]
PLACES_MAX = 100


class Document(NamedTuple):
    """One value of Redis. `field` is empty for a plain key, `value` for what is gone."""

    key: str
    field: str
    version: int
    value: str | bytes


class Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CardState(Model):
    card_id: Word
    version: Version
    credential_hash: Word
    credential_type: Word = "uid"
    member_id: Word
    status: Word
    public_key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{87}$")] | None = None
    valid_from: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None
    places: Annotated[list[Word], Field(max_length=PLACES_MAX)] | None = None
    host_member_id: Word | None = None

    def more(self) -> dict[str, Any]:
        """What a plain card has not. Raises ValueError for a guest pass without its own."""
        if self.credential_type == "guest":
            if self.valid_from is None or self.valid_until is None:
                raise ValueError("a guest pass without its times")
            if self.places is None or self.host_member_id is None:
                raise ValueError("a guest pass without its places or its host")
            return {
                "valid_from": int(self.valid_from.timestamp()),
                "valid_until": int(self.valid_until.timestamp()),
                "places": self.places,
                "host_member_id": self.host_member_id,
            }
        return {"public_key": self.public_key} if self.public_key is not None else {}


class MemberState(Model):
    member_id: Word
    version: Version
    status: Word
    places: dict[Word, str] = Field(default_factory=dict)


class ReaderState(Model):
    reader_id: Word
    version: Version
    city_id: Word
    key_sha256: Word
    status: Word


class StandingState(Model):
    member_id: Word
    version: Version
    standing: Word


class DoorState(Model):
    door_id: Word
    kind: Word
    min_assurance: int = 1
    unlock_ms: Annotated[int, Field(ge=0, le=60_000)]
    publics: list[str] = Field(default_factory=list)
    open: list[tuple[int, int]] = Field(default_factory=list)
    readers: list[str] = Field(default_factory=list)


class PlaceState(Model):
    place_id: Word
    version: Version
    city_id: Word
    status: Word
    capacity: Annotated[int, Field(ge=0)] | None = None
    anti_passback: Literal["off", "hard"] = "off"
    expires_at: datetime
    doors: list[DoorState] = Field(default_factory=list)


def card_documents(value: bytes) -> list[Document]:
    card = CardState.model_validate_json(value)
    # Among a million plain cards every byte counts; only what they have not is told at length.
    more = card.more()
    between = f"{orjson.dumps(more).decode()} " if more else ""
    text = f"{card.version} {card.status} {between}{card.member_id}"
    return [Document(f"card:{card.credential_hash}", card.card_id, card.version, text)]


def member_documents(value: bytes) -> list[Document]:
    member = MemberState.model_validate_json(value)
    text = f"{member.version} {member.status} {orjson.dumps(member.places).decode()}"
    return [Document(f"member:{member.member_id}", "", member.version, text)]


def reader_documents(value: bytes) -> list[Document]:
    reader = ReaderState.model_validate_json(value)
    text = f"{reader.version} {reader.status} {reader.city_id} {reader.key_sha256}"
    return [Document(f"reader:{reader.reader_id}", "", reader.version, text)]


def standing_documents(value: bytes) -> list[Document]:
    state = StandingState.model_validate_json(value)
    text = f"{state.version} {state.standing}"
    return [Document(f"standing:{state.member_id}", "", state.version, text)]


def place_documents(value: bytes) -> list[Document]:
    """One document for the place and one for each door, all of the same version."""
    place = PlaceState.model_validate_json(value)
    of_place = orjson.dumps({"city_id": place.city_id, "capacity": place.capacity}).decode()
    found = [Document(f"place:{place.place_id}", "", place.version, f"{place.version} {of_place}")]
    for door in place.doors:
        policy = {
            "city_id": place.city_id,
            "status": place.status,
            "capacity": place.capacity,
            "anti_passback": place.anti_passback,
            "expires_at": int(place.expires_at.timestamp()),
            **door.model_dump(exclude={"door_id"}),
        }
        text = b"%d %b %b" % (place.version, place.place_id.encode(), orjson.dumps(policy))
        found.append(Document(f"door:{door.door_id}", "", place.version, text))
    return found


DOCUMENTS: Mapping[str, Callable[[bytes], list[Document]]] = {
    CARDS.name: card_documents,
    MEMBERS.name: member_documents,
    READERS.name: reader_documents,
    STANDINGS.name: standing_documents,
    PLACES.name: place_documents,
}

# The kinds of documents, which begin their keys.
KINDS = ("card", "member", "reader", "standing", "place", "door")

# A null value with the aggregate's id as its key says that the thing is gone. Doors go with their
# place, because they only count while the place has their version. A card's key is not its id: the
# projector looks for it.
KEYS: Mapping[str, str] = {
    MEMBERS.name: "member",
    READERS.name: "reader",
    STANDINGS.name: "standing",
    PLACES.name: "place",
}


def documents_of(topic: str, key: bytes | None, value: bytes | None) -> list[Document]:
    """The documents in one message; none for a card that is gone.

    Raises ValueError (pydantic's included) for a message that says nothing understandable.
    """
    if value is not None:
        return DOCUMENTS[topic](value)
    if topic not in KEYS:
        return []
    return [Document(f"{KEYS[topic]}:{(key or b'').decode()}", "", 0, "")]
