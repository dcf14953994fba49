"""What access tells operators. All raise Unavailable and Refused."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime

from portal.network import Network, fit, fit_all
from portal.views import View, one_of

REASONS = (
    "staff",
    "resident",
    "guest",
    "network_member",
    "exit",
    "unknown_credential",
    "credential_blocked",
    "credential_too_weak",
    "pass_expired",
    "credential_replayed",
    "interlock",
    "member_suspended",
    "place_locked_down",
    "place_not_in_network",
    "policy_stale",
    "not_entitled",
    "guest_not_valid",
    "outside_hours",
    "standing_lapsed",
    "no_one_in_charge",
    "place_full",
    "function_full",
    "passback",
)
TROUBLE = ("never_heard", "silent", "snapshot_old", "no_snapshot", "clock_off", "backlog")
READERS_SHOWN = 200
TAPS_SHOWN = 20
NAMES_AT_ONCE = 1000


class Hour(View):
    start: AwareDatetime
    entered: int
    left: int
    peak: int


class Occupancy(View):
    capacity: int | None = None
    hours: list[Hour]

    @property
    def most(self) -> int:
        """What a full bar stands for."""
        return max(1, self.capacity or 0, *(hour.peak for hour in self.hours))


class Count(View):
    day: date
    direction: str
    decision: str
    reason: Annotated[str, one_of(REASONS, "other")]
    taps: int


class Counts(View):
    items: list[Count]


class Tap(View):
    decision_id: UUID
    door_id: UUID
    direction: str
    decision: str
    reason: Annotated[str, one_of(REASONS, "other")]
    occurred_at: AwareDatetime


class Reader(View):
    """How a reader is; `trouble`: what somebody should look at."""

    reader_id: UUID
    doors: list[UUID]
    last_tap_at: AwareDatetime | None = None
    reported_at: AwareDatetime | None = None
    program: str | None = None
    snapshot_issued_at: AwareDatetime | None = None
    clock_offset_ms: int | None = None
    backlog: int | None = None
    trouble: list[Annotated[str, one_of(TROUBLE, "other")]]


async def occupancy(
    network: Network, token: str, place_id: UUID, start: datetime, hours: int
) -> Occupancy:
    params = {"from": start.isoformat(), "hours": str(hours)}
    path = f"/v1/places/{place_id}/occupancy"
    answer = await network.call("access", "GET", path, token=token, params=params)
    return fit("access", Occupancy, answer)


async def counts(network: Network, token: str, place_id: UUID, first: date, last: date) -> Counts:
    """By days in UTC, from the first to the last."""
    params = {"from": first.isoformat(), "until": last.isoformat()}
    path = f"/v1/places/{place_id}/counts"
    answer = await network.call("access", "GET", path, token=token, params=params)
    return fit("access", Counts, answer)


async def taps(network: Network, token: str, place_id: UUID) -> list[Tap]:
    """The last ones, the newest first."""
    params = {"place_id": str(place_id), "limit": str(TAPS_SHOWN)}
    answer = await network.call("access", "GET", "/v1/taps", token=token, params=params)
    return fit_all("access", Tap, answer)


async def readers(network: Network, token: str) -> list[Reader]:
    """Of the caller's city, at most READERS_SHOWN."""
    params = {"limit": str(READERS_SHOWN)}
    answer = await network.call("access", "GET", "/v1/readers/health", token=token, params=params)
    return fit_all("access", Reader, answer)


class Zone(View):
    """`zone` null: inside, and in no zone that is known."""

    zone: str | None = None
    inside: int


class Inside(View):
    """A member, or the card of a guest. `since`: their last movement."""

    member_id: UUID
    zone: str | None = None
    since: AwareDatetime


class Evacuation(View):
    at: AwareDatetime
    inside: int
    zones: list[Zone]
    people: list[Inside] | None = None


class Name(View):
    id: UUID
    name: str


async def inside(network: Network, token: str, place_id: UUID, *, with_names: bool) -> Evacuation:
    """Who is inside: numbers, and `with_names` also the people, for the warden alone."""
    params = {"members": "true"} if with_names else {}
    path = f"/v1/places/{place_id}/evacuation"
    answer = await network.call("access", "GET", path, token=token, params=params)
    return fit("access", Evacuation, answer)


async def names_inside(
    network: Network, token: str, place_id: UUID, ids: list[UUID]
) -> dict[UUID, str]:
    """The names of these people, for the warden of the place."""
    path = f"/v1/places/{place_id}/names-inside"
    found: dict[UUID, str] = {}
    for start in range(0, len(ids), NAMES_AT_ONCE):
        body = {"ids": [str(one) for one in ids[start : start + NAMES_AT_ONCE]]}
        answer = await network.call("identity", "POST", path, token=token, json=body)
        found |= {one.id: one.name for one in fit_all("identity", Name, answer)}
    return found
