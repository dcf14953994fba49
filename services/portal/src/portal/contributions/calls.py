"""Contributions, as the time bank tells them. All raise Unavailable and Refused."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime

from portal.forms import as_uuid
from portal.network import Network, fit
from portal.views import View, one_of

ACTIVITIES = (
    "cooking",
    "cleaning",
    "repair",
    "garden",
    "care",
    "childcare",
    "teaching",
    "reception",
    "transport",
    "animation",
    "administration",
    "craft",
    "other",
)


Activity = Annotated[str, one_of(ACTIVITIES, "other")]


class Beneficiary(View):
    kind: Literal["member", "organisation", "commons", "outsider"]
    id: UUID | None = None


class Word(View):
    """What somebody says instead of what the giver says."""

    minutes: int
    note: str | None = None
    written_by: str
    written_at: AwareDatetime


class Version(View):
    """What was said of a contribution; by the giver's side, the beneficiary's or a mediator."""

    version: int
    side: Literal["giver", "beneficiary", "mediator"]
    minutes: int
    performed_on: date
    activity: Activity
    place_id: UUID | None = None
    note: str | None = None
    written_by: str
    written_at: AwareDatetime


@dataclass(frozen=True, slots=True)
class Said:
    """The last word of one side."""

    side: str
    minutes: int
    note: str | None
    written_by: str
    written_at: datetime


class Contribution(View):
    """The minutes, day, activity, place and note are what the giver says."""

    contribution_id: UUID
    city_id: str
    giver_id: UUID
    beneficiary: Beneficiary
    status: Literal["logged", "confirmed", "disputed", "withdrawn", "refused", "reversed"]
    version: int
    minutes: int
    performed_on: date
    activity: Activity
    place_id: UUID | None = None
    note: str | None = None
    logged_by: str
    logged_at: AwareDatetime
    confirmed_minutes: int | None = None
    counter: Word | None = None
    ruling: Word | None = None
    versions: tuple[Version, ...] = ()

    @property
    def people(self) -> list[UUID]:
        """The members whose hours these are."""
        both = [self.giver_id, self.beneficiary.id if self.beneficiary.kind == "member" else None]
        return [one for one in both if one is not None]

    @property
    def everybody(self) -> list[UUID]:
        """Those, and whoever wrote something."""
        authors = [said.written_by for said in self.sides]
        authors += [version.written_by for version in self.versions]
        wrote = [as_uuid(author) for author in authors]
        return [*self.people, *(one for one in wrote if one is not None)]

    @property
    def sides(self) -> list[Said]:
        """The last word of each side: the giver's, then those of the others who said otherwise."""
        given = Said("giver", self.minutes, self.note, self.logged_by, self.logged_at)
        others = [
            Said(side, word.minutes, word.note, word.written_by, word.written_at)
            for side, word in (("beneficiary", self.counter), ("mediator", self.ruling))
            if word is not None
        ]
        return [given, *others]


class ContributionPage(View):
    items: list[Contribution]
    next: str | None = None


class Step(View):
    """`giver_id` had `minutes` confirmed by `confirmer_id`: `percent` of all that they had."""

    giver_id: UUID
    confirmer_id: UUID
    minutes: int
    percent: int


class Flag(View):
    """A ring of people who confirm one another; `reason` is in each language."""

    steps: list[Step]
    reason: dict[str, str]


class Flags(View):
    """`complete`: all confirmations were looked at, not only the newest."""

    days: int
    complete: bool
    items: list[Flag]


async def flags(network: Network, token: str, city_id: str) -> Flags:
    """For stewards: who confirms whom in turn. Nothing is blocked by it."""
    params = {"city_id": city_id}
    path = "/v1/contributions/flags"
    answer = await network.call("timebank", "GET", path, token=token, params=params)
    return fit("timebank", Flags, answer)


async def log(network: Network, token: str, body: dict[str, Any]) -> Contribution:
    """`body` has its contribution_id, which is the idempotency key too."""
    key = body["contribution_id"]
    answer = await network.call(
        "timebank", "POST", "/v1/contributions", token=token, json=body, key=key
    )
    return fit("timebank", Contribution, answer)


async def edit(
    network: Network, token: str, contribution_id: UUID, body: dict[str, Any], key: str
) -> None:
    path = f"/v1/contributions/{contribution_id}"
    await network.call("timebank", "PATCH", path, token=token, json=body, key=key)


async def act(
    network: Network,
    token: str,
    contribution_id: UUID,
    what: str,
    key: str,
    body: dict[str, Any] | None = None,
) -> None:
    """confirm, dispute, accept, rule, withdraw or reverse."""
    path = f"/v1/contributions/{contribution_id}/{what}"
    await network.call("timebank", "POST", path, token=token, json=body, key=key)


async def get(network: Network, token: str, contribution_id: UUID) -> Contribution:
    path = f"/v1/contributions/{contribution_id}"
    return fit("timebank", Contribution, await network.call("timebank", "GET", path, token=token))


async def listed(
    network: Network,
    token: str,
    *,
    member_id: str = "",
    role: str = "",
    city_id: str | None = None,
    status: str = "",
    limit: int = 20,
    cursor: str = "",
) -> ContributionPage:
    asked = {
        "member_id": member_id,
        "role": role,
        "city_id": city_id or "",
        "status": status,
        "limit": str(limit),
        "cursor": cursor,
    }
    params = {name: value for name, value in asked.items() if value}
    answer = await network.call("timebank", "GET", "/v1/contributions", token=token, params=params)
    return fit("timebank", ContributionPage, answer)


async def to_confirm(
    network: Network, token: str, limit: int = 20, cursor: str = ""
) -> ContributionPage:
    """What waits for the visitor's word."""
    params = {"limit": str(limit), **({"cursor": cursor} if cursor else {})}
    answer = await network.call(
        "timebank", "GET", "/v1/contributions/to-confirm", token=token, params=params
    )
    return fit("timebank", ContributionPage, answer)
