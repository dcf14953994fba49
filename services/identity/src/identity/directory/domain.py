"""Who may learn a member's name: decided by the member, but for those who run the city."""

import base64
import binascii
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from identity.domain import Actor

# Who finds a member by name: nobody, the members of the own city, or those of every city.
Visibility = Literal["nobody", "city", "federation"]
NAMES_MAX = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """A member as the directory shows them. `name_sort`: the name without case and accents."""

    member_id: UUID
    city_id: str | None
    display_name: str
    name_sort: str


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks. A city's stewards and the federation's admins see their members in any case."""

    id: UUID
    member_of: str | None
    steward_of: str | None
    sees_everybody: bool


def viewer(actor: Actor) -> Viewer:
    """A service is no member of its city: it sees nobody unless it works there as a steward."""
    return Viewer(
        id=actor.id,
        member_of=actor.city_id if actor.kind == "member" else None,
        steward_of=actor.city_id if actor.works_in(actor.city_id, "steward") else None,
        sees_everybody=actor.is_federation_admin,
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of the directory ended."""

    name_sort: str
    member_id: UUID


class UnknownCursor(ValueError):
    """A cursor that no page gave."""


def to_cursor(entry: Entry) -> str:
    text = f"{entry.member_id}{entry.name_sort}"
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read_cursor(cursor: str) -> Place:
    """Raises UnknownCursor."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        if "\x00" in text:
            raise UnknownCursor("NUL")
        return Place(name_sort=text[36:], member_id=UUID(text[:36]))
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise UnknownCursor("not a cursor of the directory") from error
