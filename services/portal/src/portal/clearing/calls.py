"""Transfers between cities, agreements and positions. All raise Unavailable and Refused."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime

from portal.network import Gift, Network, fit, fit_all
from portal.views import View, one_of

SENT_STATES = ("sent", "settled", "returned")
RECEIVED_STATES = ("accepted", "refused")
# Why a city did not take minutes in.
REASONS = (
    "no_agreement",
    "payee_not_found",
    "payee_closed",
    "limit_reached",
    "ceiling_exceeded",
    "deadline_passed",
    "not_reversible",
    "already_reversed",
)
AGREEMENT_STATES = ("proposed", "active", "suspended", "ended")
CHANGES = ("proposed", "accepted", "suspended", "resumed", "ended")
STEPS = ("suspend", "resume", "end")
CITIES_MAX = 1000
CITIES_AT_ONCE = 100

Reason = Annotated[str | None, one_of((*REASONS, None), "other")]


class Sent(View):
    """A transfer to another city. `overdue`: that city should have answered; it is asked again."""

    transfer_id: UUID
    peer_city_id: str
    minutes: int
    levy_minutes: int = 0
    payee: UUID
    memo: str | None = None
    state: Annotated[str, one_of(SENT_STATES, "unknown")]
    reason: Reason = None
    overdue: bool = False
    sent_at: AwareDatetime
    deadline: AwareDatetime
    answered_at: AwareDatetime | None = None
    reverses: UUID | None = None

    @property
    def is_given(self) -> bool:
        return True

    @property
    def at(self) -> AwareDatetime:
        return self.sent_at


class Received(View):
    """A transfer from another city."""

    transfer_id: UUID
    peer_city_id: str
    minutes: int
    levy_minutes: int = 0
    payee: UUID
    state: Annotated[str, one_of(RECEIVED_STATES, "unknown")]
    reason: Reason = None
    decided_at: AwareDatetime
    reverses: UUID | None = None

    @property
    def is_given(self) -> bool:
        return False

    @property
    def at(self) -> AwareDatetime:
        return self.decided_at


class SentPage(View):
    items: list[Sent]
    next: str | None = None


class ReceivedPage(View):
    items: list[Received]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """How much of a limit is used, in minutes; `soft`: enough to warn people."""

    minutes: int
    limit: int
    soft: bool

    @property
    def percent(self) -> int:
        """Never 100 before all is used, nor more than people can make sense of."""
        return min(999, self.minutes * 100 // self.limit) if self.limit else 100


def in_fours(key: str) -> str:
    """A key in groups of four, as one reads it to somebody."""
    return " ".join(key[i : i + 4] for i in range(0, len(key), 4))


class Agreement(View):
    agreement_id: UUID
    city_id: str
    peer_city_id: str
    state: Annotated[str, one_of(AGREEMENT_STATES, "unknown")]
    proposed_by_us: bool
    suspended_by_us: bool
    suspended_by_peer: bool
    limit_out_minutes: int
    limit_in_minutes: int
    soft_percent: int
    levy_out_permille: int
    levy_in_permille: int
    peer_key: str
    own_key: str | None = None

    @property
    def to_accept(self) -> bool:
        return self.state == "proposed" and not self.proposed_by_us

    @property
    def steps(self) -> list[str]:
        """What a steward may do about it."""
        if self.state in ("ended", "unknown"):
            return []
        if self.state == "proposed":
            return ["end"]
        return ["resume" if self.suspended_by_us else "suspend", "end"]

    @property
    def spelt_key(self) -> str:
        return in_fours(self.peer_key)

    @property
    def own_spelt_key(self) -> str:
        return in_fours(self.own_key or "")

    def used(self, minutes: int, limit: int) -> Use:
        return Use(minutes, limit, bool(limit) and minutes * 100 >= limit * self.soft_percent)


class Terms(View):
    limit_out_minutes: int | None = None
    limit_in_minutes: int | None = None


class Change(View):
    """`changed_by`: a member's id, or the name of the other city."""

    change: Annotated[str, one_of(CHANGES, "other")]
    agreement: Terms
    changed_by: str
    changed_at: AwareDatetime


class Position(View):
    """Where a city stands with another; `clearing_minutes` above zero: its members gave more."""

    city_id: str
    peer_city_id: str
    clearing_minutes: int
    in_transit_minutes: int
    in_transit: int
    overdue: int
    oldest_sent_at: AwareDatetime | None = None
    returned: int
    state: Annotated[str | None, one_of((*AGREEMENT_STATES, None), "unknown")] = None
    limit_out_minutes: int | None = None
    limit_in_minutes: int | None = None
    soft: bool = False

    @property
    def out_minutes(self) -> int:
        """What counts against the limit of giving: what is under way is taken as given."""
        return max(0, self.clearing_minutes + self.in_transit_minutes)

    @property
    def in_minutes(self) -> int:
        return max(0, -self.clearing_minutes)


class Reversal(View):
    agreed: bool
    peer_agreed: bool
    reversal_id: UUID | None = None
    problem: str | None = None


class City(View):
    city_id: str
    name: str


# --- transfers


async def send(network: Network, token: str, gift: Gift) -> None:
    """Give minutes to a member of another city."""
    body: dict[str, Any] = {
        "transfer_id": str(gift.transfer_id),
        "from_account": str(gift.from_account),
        "to": {"city_id": gift.to_city, "member_id": str(gift.to_member)},
        "minutes": gift.minutes,
    }
    if gift.memo:
        body["memo"] = gift.memo
    key = str(gift.transfer_id)
    await network.call(
        "timebank", "POST", "/v1/clearing/transfers", token=token, json=body, key=key
    )


async def sent_one(network: Network, token: str, transfer_id: UUID) -> Sent:
    path = f"/v1/clearing/transfers/{transfer_id}"
    return fit("timebank", Sent, await network.call("timebank", "GET", path, token=token))


async def sent(
    network: Network, token: str, *, city: str = "", peer: str = "", limit: int, cursor: str = ""
) -> SentPage:
    """One's own, the newest first; with `city`, those of a whole city."""
    params = some(city_id=city, peer_city_id=peer, limit=str(limit), cursor=cursor)
    path = "/v1/clearing/transfers"
    answer = await network.call("timebank", "GET", path, token=token, params=params)
    return fit("timebank", SentPage, answer)


async def received(
    network: Network, token: str, *, city: str = "", peer: str = "", limit: int, cursor: str = ""
) -> ReceivedPage:
    """As `sent`, of what came."""
    params = some(city_id=city, peer_city_id=peer, limit=str(limit), cursor=cursor)
    path = "/v1/clearing/arrivals"
    answer = await network.call("timebank", "GET", path, token=token, params=params)
    return fit("timebank", ReceivedPage, answer)


async def take_back(network: Network, token: str, transfer_id: UUID, key: str) -> Reversal:
    """Agree, for the visitor's city, that a transfer be taken back."""
    path = f"/v1/clearing/transfers/{transfer_id}/reversal"
    answer = await network.call("timebank", "POST", path, token=token, key=key)
    return fit("timebank", Reversal, answer)


def some(**asked: str) -> dict[str, str]:
    return {name: value for name, value in asked.items() if value}


# --- agreements and positions


async def agreements(network: Network, token: str, city_id: str) -> list[Agreement]:
    params = {"city_id": city_id}
    answer = await network.call("timebank", "GET", "/v1/agreements", token=token, params=params)
    return fit_all("timebank", Agreement, answer)


async def history(network: Network, token: str, city_id: str, peer: str) -> list[Change]:
    """Every change, the first first."""
    path = f"/v1/agreements/{city_id}/{peer}/history"
    return fit_all("timebank", Change, await network.call("timebank", "GET", path, token=token))


async def propose(network: Network, token: str, body: dict[str, Any]) -> None:
    """`body` has its agreement_id, which is the idempotency key too."""
    key = body["agreement_id"]
    await network.call("timebank", "POST", "/v1/agreements", token=token, json=body, key=key)


async def step(
    network: Network,
    token: str,
    city_id: str,
    peer: str,
    what: Literal["accept", "suspend", "resume", "end"],
    key: str,
    body: dict[str, Any] | None = None,
) -> None:
    path = f"/v1/agreements/{city_id}/{peer}/{what}"
    await network.call("timebank", "POST", path, token=token, json=body, key=key)


async def positions(network: Network, token: str, city_id: str = "") -> list[Position]:
    """Of a city with every other; without one, of all, for auditors and federation admins."""
    path = "/v1/clearing/positions"
    params = some(city_id=city_id)
    answer = await network.call("timebank", "GET", path, token=token, params=params)
    return fit_all("timebank", Position, answer)


async def cities(network: Network, token: str) -> list[City]:
    """The cities of the federation, the first CITIES_MAX of them."""
    found: list[City] = []
    cursor = ""
    while len(found) < CITIES_MAX:
        params = some(limit=str(CITIES_AT_ONCE), cursor=cursor)
        answer = await network.call("identity", "GET", "/v1/cities", token=token, params=params)
        found += fit_all("identity", City, answer)
        cursor = str(answer.get("next") or "")
        if not cursor:
            break
    return found
