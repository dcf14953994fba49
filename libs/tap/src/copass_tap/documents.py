"""From the documents that a place's policy travels in to what the decision takes. Pure."""

from collections.abc import Mapping
from typing import Any

from copass_tap.decision import Door


def read_door(door_id: str, place_id: str, version: int, fields: Mapping[str, Any]) -> Door:
    """A door from the parsed JSON of its policy document, as access keeps it. What only some
    doors have may be absent.

    Raises KeyError or TypeError for a document of another shape.
    """
    more = fields.get
    return Door(
        door_id=door_id,
        place_id=place_id,
        city_id=fields["city_id"],
        version=version,
        place_status=fields["status"],
        capacity=fields["capacity"],
        anti_passback=fields["anti_passback"],
        expires_at=fields["expires_at"],
        kind=fields["kind"],
        min_assurance=fields["min_assurance"],
        unlock_ms=fields["unlock_ms"],
        publics=frozenset(fields["publics"]),
        open_from=tuple(interval[0] for interval in fields["open"]),
        open_until=tuple(interval[1] for interval in fields["open"]),
        readers=frozenset(fields["readers"]),
        passback_minutes=more("passback_minutes") or 0,
        has_zones=more("has_zones", False),
        from_zone=more("from_zone"),
        to_zone=more("to_zone"),
        interlock=more("interlock"),
        function=more("function"),
        function_capacity=more("function_capacity"),
        function_zones=tuple(more("function_zones", ())),
        opens_with=more("opens_with", "anybody"),
        is_charge_local=more("is_charge_local", False),
        day_starts=tuple(more("day_starts", ())),
        guests=more("guests", "hours"),
    )
