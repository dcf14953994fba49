"""What access publishes, and the state topics that it keeps in Redis."""

from typing import Literal, TypedDict

from common.events import Topic

TAPS = Topic("access.taps.v1", compacted=False)
TAP_DECIDED = "access.tap.decided.v1"

CARDS = Topic("identity.cards.v1", compacted=True)
MEMBERS = Topic("identity.members.v1", compacted=True)
READERS = Topic("identity.readers.v1", compacted=True)
PLACES = Topic("places.places.v1", compacted=True)
STANDINGS = Topic("timebank.standings.v1", compacted=True)
PROJECTED = (CARDS, MEMBERS, READERS, PLACES, STANDINGS)

HISTORY_GROUP = "access.history"
PROJECTION_GROUP = "access.projection"


class TapDecided(TypedDict):
    """`access.tap.decided.v1`. Ids are UUIDs, times RFC 3339 in UTC."""

    decision_id: str
    tap_id: str
    door_id: str
    place_id: str
    city_id: str
    reader_id: str
    card_id: str | None
    member_id: str | None
    direction: Literal["in", "out"]
    mode: Literal["live", "replay"]
    decision: Literal["grant", "deny"]
    reason: str
    occurred_at: str
    decided_at: str
    policy_version: int
    stream_id: str
