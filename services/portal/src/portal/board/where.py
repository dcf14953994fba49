"""Where something is, as people say it: a place of the register, a commune, or a position."""

from dataclasses import dataclass
from uuid import UUID

from portal.forms import as_coordinate
from portal.people import folded
from portal.views import Place
from portal.visit import Visit

LOOKED_AT = 50

as_latitude, as_longitude = as_coordinate(90), as_coordinate(180)


@dataclass(frozen=True, slots=True)
class Where:
    """`place_id` only for a place of the visitor's own city."""

    latitude: float
    longitude: float
    name: str = ""
    place_id: UUID | None = None


def as_position(text: str) -> Where | None:
    """`47.22 -1.55`, also with commas or a semicolon: `47,22 ; -1,55`."""
    parts = text.replace(";", " ").replace(", ", " ").split()
    if len(parts) == 1 and text.count(",") == 1:
        parts = text.split(",")
    if len(parts) != 2:
        return None
    latitude, longitude = as_latitude(parts[0]), as_longitude(parts[1])
    if latitude is None or longitude is None:
        return None
    return Where(latitude, longitude)


async def find_where(visit: Visit, text: str) -> Where | None:
    """Where is meant; None when nobody knows. Raises Unavailable and Refused.

    A place of one's own city before one of another, and a whole name before a part of it.
    """
    if position := as_position(text):
        return position
    page = await visit.network.places(text=text, limit=LOOKED_AT)
    city = visit.member().city_id

    def rank(place: Place) -> tuple[bool, bool]:
        return (folded(place.name) != folded(text), place.city_id != city)

    found = [place for place in page.items if place.latitude is not None]
    if not found:
        return None
    best = min(found, key=rank)
    if best.latitude is None or best.longitude is None:
        return None
    named = folded(best.name) == folded(text)
    mine = best.city_id == city and named
    return Where(
        best.latitude,
        best.longitude,
        best.name if named else best.commune or best.name,
        best.place_id if mine else None,
    )
