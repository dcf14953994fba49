"""Audits as the time bank answers them. All raise Unavailable and Refused."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime

from portal.network import Network, fit, fit_all
from portal.views import View, one_of

RULES = (
    "unusual_size",
    "unusual_hour",
    "turned_one_way",
    "ring",
    "piecemeal",
    "overdue",
    "returned",
)
LINES = ("settlement", "arrival", "return", "reversal", "netting")
WAITING_SHOWN = 50
LOOKS_SHOWN = 50
LINES_SHOWN = 100


class Waiting(View):
    """Minutes that left a city and of which it has not heard."""

    transfer_id: UUID
    city_id: str
    peer_city_id: str
    minutes: int
    sent_at: AwareDatetime
    age_seconds: int
    overdue: bool
    queries: int

    @property
    def hours(self) -> int:
        return self.age_seconds // 3600


class WaitingPage(View):
    items: list[Waiting]
    next: str | None = None


class Anomaly(View):
    """What a rule found; `reason` and `figures` are the same, in English and in numbers."""

    rule: Annotated[str, one_of(RULES, "other")]
    from_city: str
    to_city: str
    at: AwareDatetime
    reason: str
    figures: dict[str, float]
    transfers: int
    transfer_ids: list[UUID]


class Findings(View):
    """What was looked at, and what looked odd."""

    crossings: int
    items: list[Anomaly]


class Look(View):
    looked_at: AwareDatetime
    actor_id: str
    role: Annotated[str, one_of(("auditor", "federation_admin"), "other")]
    city_id: str | None = None
    path: str


class Moment(View):
    at: AwareDatetime
    balance_minutes: int
    in_transit_minutes: int


class Line(View):
    posted_at: AwareDatetime
    kind: Annotated[str, one_of(LINES, "other")]
    minutes: int
    balance_minutes: int
    clearing_id: UUID | None = None
    log_index: int | None = None


class PairStatement(View):
    opening: Moment
    closing: Moment
    items: list[Line]
    next: str | None = None


async def waiting(network: Network, token: str, params: dict[str, str]) -> WaitingPage:
    """What is on its way, the oldest first."""
    params = {**params, "limit": str(WAITING_SHOWN)}
    return fit("timebank", WaitingPage, await ask(network, token, "in-transit", params))


async def anomalies(network: Network, token: str, params: dict[str, str]) -> Findings:
    return fit("timebank", Findings, await ask(network, token, "anomalies", params))


async def looks(network: Network, token: str, params: dict[str, str]) -> list[Look]:
    """The last ones of auditors and federation admins."""
    params = {**params, "limit": str(LOOKS_SHOWN)}
    return fit_all("timebank", Look, await ask(network, token, "looks", params))


async def pair(network: Network, token: str, params: dict[str, str]) -> PairStatement:
    """What moved between two cities, as the first of them keeps it."""
    params = {**params, "limit": str(LINES_SHOWN)}
    return fit("timebank", PairStatement, await ask(network, token, "statement", params))


async def ask(network: Network, token: str, what: str, params: dict[str, str]) -> dict[str, Any]:
    return await network.call("timebank", "GET", f"/v1/audit/{what}", token=token, params=params)
