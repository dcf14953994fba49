"""State events of the other services → the documents that Redis keeps. Pure.

The models are tolerant readers: only the fields that are used here, whatever else is there.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple

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


class ZoneState(Model):
    zone: Word
    function: Word | None = None


class FunctionState(Model):
    function: Word
    capacity: Annotated[int, Field(ge=0)] | None = None
    opens_with: Word | None = None


class DoorState(Model):
    door_id: Word
    kind: Word
    min_assurance: int = 1
    unlock_ms: Annotated[int, Field(ge=0, le=60_000)]
    publics: list[str] = Field(default_factory=list)
    open: list[tuple[int, int]] = Field(default_factory=list)
    readers: list[str] = Field(default_factory=list)
    anti_passback: Word | None = None
    passback_minutes: Annotated[int, Field(ge=0, le=10_000)] | None = None
    from_zone: Word | None = None
    to_zone: Word | None = None
    interlock: Word | None = None


class PlaceState(Model):
    place_id: Word
    version: Version
    city_id: Word
    status: Word
    capacity: Annotated[int, Field(ge=0)] | None = None
    anti_passback: Word = "off"
    expires_at: datetime
    opens_with: Word = "anybody"
    guests: Word = "hours"
    zones: list[ZoneState] = Field(default_factory=list)
    functions: list[FunctionState] = Field(default_factory=list)
    day_starts: list[int] = Field(default_factory=list)
    doors: list[DoorState] = Field(default_factory=list)


def card_documents(value: bytes) -> list[Document]:
    """One document, empty when nobody needs to know of the card any more."""
    card = CardState.model_validate_json(value)
    if card.status == "ended":  # a guest of long ago
        return [Document(f"card:{card.credential_hash}", card.card_id, card.version, "")]
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
    of_place: dict[str, Any] = {"city_id": place.city_id, "capacity": place.capacity}
    if place.zones:
        of_place["zones"] = [zone.zone for zone in place.zones]
    text = f"{place.version} {orjson.dumps(of_place).decode()}"
    found = [Document(f"place:{place.place_id}", "", place.version, text)]
    for door in place.doors:
        policy = door_policy(place, door)
        asks = scene_asked(policy)
        between = b"+%b " % orjson.dumps(asks) if asks else b""
        raw = b"%d %b %b%b" % (
            place.version,
            place.place_id.encode(),
            between,
            orjson.dumps(policy),
        )
        found.append(Document(f"door:{door.door_id}", "", place.version, raw))
    return found


def split_door(document: bytes) -> tuple[bytes, bytes, bytes]:
    """Version, place_id and policy of a door's document, without what it asks of read.lua."""
    version, place_id, policy = document.split(b" ", 2)
    return version, place_id, policy.split(b" ", 1)[1] if policy.startswith(b"+") else policy


def door_policy(place: PlaceState, door: DoorState) -> dict[str, Any]:
    """What copass_tap.documents.read_door reads. What a door does not use is left out."""
    functions = {function.function: function for function in place.functions}
    behind = next((zone for zone in place.zones if zone.zone == door.to_zone), None)
    function = functions.get(behind.function) if behind and behind.function else None
    opens_with = (function.opens_with if function else None) or place.opens_with
    is_charged = opens_with != "anybody"
    policy: dict[str, Any] = {
        "city_id": place.city_id,
        "status": place.status,
        "capacity": place.capacity,
        "anti_passback": door.anti_passback or place.anti_passback,
        "expires_at": int(place.expires_at.timestamp()),
        **door.model_dump(
            include={"kind", "min_assurance", "unlock_ms", "publics", "open", "readers"}
        ),
    }
    more = {
        "passback_minutes": door.passback_minutes,
        "has_zones": bool(place.zones),
        "from_zone": door.from_zone,
        "to_zone": door.to_zone,
        "interlock": door.interlock,
        "function": function.function if function else None,
        "function_zones": [
            zone.zone for zone in place.zones if function and zone.function == function.function
        ],
        "opens_with": opens_with if is_charged else None,
        "is_charge_local": is_charged and function is not None and function.opens_with is not None,
        "day_starts": place.day_starts if opens_with == "staff_today" else None,
        "guests": place.guests if place.guests != "hours" else None,
    }
    policy |= {name: value for name, value in more.items() if value}
    if function is not None and function.capacity is not None:
        policy["function_capacity"] = function.capacity
    return policy


def scene_asked(policy: Mapping[str, Any]) -> dict[str, Any]:
    """What read.lua must look at beside what every door asks; empty for most doors."""
    asks = {
        "zones": policy.get("has_zones"),
        "passback": policy["anti_passback"] != "off",
        "function_zones": policy.get("function_zones"),
        "charge": policy.get("opens_with"),
        "is_charge_local": policy.get("is_charge_local"),
        "interlock": policy.get("interlock"),
    }
    return {name: value for name, value in asks.items() if value}


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
