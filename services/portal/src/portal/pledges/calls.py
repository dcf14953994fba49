"""Pledges and standings, as the time bank tells them. All raise Unavailable and Refused."""

from datetime import date, timedelta
from typing import Any, Literal
from uuid import UUID

from portal.network import Network, fit, fit_all
from portal.views import View


class Period(View):
    """A month of a pledge; `grace_until` is the last day to catch up on what is short."""

    month: date
    owed_minutes: int
    met_minutes: int
    short_minutes: int
    state: Literal["open", "met", "grace", "lapsed"]
    grace_until: date

    @property
    def last_day(self) -> date:
        return (self.month.replace(day=1) + timedelta(days=31)).replace(day=1) - timedelta(days=1)


class Pledge(View):
    """`ends_before`: the first month that is not owed any more."""

    pledge_id: UUID
    status: Literal["running", "ended"]
    starts_on: date
    ends_before: date | None = None
    skills: list[str]


class Term(View):
    from_month: date
    minutes_per_month: int


class PledgeDetail(Pledge):
    terms: list[Term]
    minutes_per_month: int
    carried_minutes: int
    periods: list[Period]

    @property
    def now(self) -> Period | None:
        """The month that it is; the last one, because none is told before it begins."""
        return self.periods[-1] if self.periods else None

    @property
    def short(self) -> list[Period]:
        """The months that are over and not met, the oldest first."""
        return [period for period in self.periods if period.state in ("grace", "lapsed")]

    @property
    def coming(self) -> Term | None:
        """What changes from a month to come on."""
        current = self.now
        later = [term for term in self.terms if current and term.from_month > current.month]
        return later[-1] if later else None


class Standing(View):
    standing: Literal["good", "grace", "lapsed", "exempt"]


class Exemption(View):
    exempt: bool
    until: date | None = None


class Rules(View):
    """What a city decided about its time bank."""

    carry_minutes_max: int
    grace_days: int
    rent_cents_per_hour: int | None = None
    rent_minutes_max_per_month: int = 0


async def running(network: Network, token: str, member_id: str) -> list[PledgeDetail]:
    """The pledge that runs, in whole; none, if nothing is promised."""
    params = {"member_id": member_id, "status": "running", "limit": "1"}
    answer = await network.call("timebank", "GET", "/v1/pledges", token=token, params=params)
    return [
        await get(network, token, pledge.pledge_id)
        for pledge in fit_all("timebank", Pledge, answer)
    ]


async def get(network: Network, token: str, pledge_id: UUID) -> PledgeDetail:
    path = f"/v1/pledges/{pledge_id}"
    return fit("timebank", PledgeDetail, await network.call("timebank", "GET", path, token=token))


async def start(network: Network, token: str, body: dict[str, Any]) -> None:
    """`body` has its pledge_id, which is the idempotency key too."""
    key = body["pledge_id"]
    await network.call("timebank", "POST", "/v1/pledges", token=token, json=body, key=key)


async def change(
    network: Network, token: str, pledge_id: UUID, body: dict[str, Any], key: str
) -> None:
    path = f"/v1/pledges/{pledge_id}"
    await network.call("timebank", "PATCH", path, token=token, json=body, key=key)


async def end(network: Network, token: str, pledge_id: UUID, key: str) -> None:
    path = f"/v1/pledges/{pledge_id}/end"
    await network.call("timebank", "POST", path, token=token, key=key)


async def standing(network: Network, token: str, member_id: str) -> Standing:
    path = f"/v1/standings/{member_id}"
    return fit("timebank", Standing, await network.call("timebank", "GET", path, token=token))


async def exemption(network: Network, token: str, member_id: str) -> Exemption:
    path = f"/v1/members/{member_id}/exemption"
    return fit("timebank", Exemption, await network.call("timebank", "GET", path, token=token))


async def rules(network: Network, token: str, city_id: str) -> Rules:
    path = f"/v1/books/{city_id}/rules"
    return fit("timebank", Rules, await network.call("timebank", "GET", path, token=token))
