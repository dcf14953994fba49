"""How contributions and rings are shown."""

from datetime import date, datetime
from uuid import UUID

from pydantic import BaseModel

from common.pages import Page
from timebank.contributions import rings
from timebank.contributions.domain import (
    Activity,
    BeneficiaryKind,
    Contribution,
    Side,
    Status,
    Version,
)


class BeneficiaryView(BaseModel):
    kind: BeneficiaryKind
    id: UUID | None


class WordView(BaseModel):
    """What somebody says instead of what the giver says."""

    minutes: int
    note: str | None
    written_by: str
    written_at: datetime


class ContributionView(BaseModel):
    """`minutes`, `performed_on`, `activity`, `place_id` and `note` are what the giver says."""

    contribution_id: UUID
    city_id: str
    giver_id: UUID
    beneficiary: BeneficiaryView
    group_id: UUID | None
    status: Status
    version: int
    minutes: int
    performed_on: date
    activity: Activity
    place_id: UUID | None
    note: str | None
    counter: WordView | None
    ruling: WordView | None
    logged_by: str
    logged_at: datetime
    confirmed_minutes: int | None
    confirmed_by: str | None
    decided_at: datetime | None
    transfer_id: UUID | None
    reversal_id: UUID | None
    reversed_at: datetime | None


class ContributionPage(Page[ContributionView]):
    pass


class GroupView(BaseModel):
    group_id: UUID
    items: list[ContributionView]


class VersionView(BaseModel):
    """One of all the things that were said, as it was said."""

    version: int
    side: Side
    minutes: int
    performed_on: date
    activity: Activity
    place_id: UUID | None
    note: str | None
    written_by: str
    written_at: datetime


class ContributionWhole(ContributionView):
    versions: list[VersionView]


class StepView(BaseModel):
    """`giver_id` had `minutes` confirmed by `confirmer_id`: `percent` of all that they had."""

    giver_id: str
    confirmer_id: str
    minutes: int
    confirmations: int
    percent: int


class ReasonView(BaseModel):
    fr: str
    en: str


class FlagView(BaseModel):
    rule: rings.Rule
    minutes: int
    steps: list[StepView]
    reason: ReasonView


class FlagPage(BaseModel):
    """The rings of mutual confirmation in the `days` before `until` (included). `complete`: all
    confirmations were looked at, not only the newest."""

    city_id: str
    until: date
    days: int
    complete: bool
    items: list[FlagView]


def view_word(version: Version | None, *, with_notes: bool) -> WordView | None:
    if version is None:
        return None
    return WordView(
        minutes=version.claim.minutes,
        note=version.claim.note if with_notes else None,
        written_by=version.written_by,
        written_at=version.written_at,
    )


def view(contribution: Contribution, *, with_notes: bool = True) -> ContributionView:
    claim = contribution.given.claim
    return ContributionView(
        contribution_id=contribution.id,
        city_id=contribution.city_id,
        giver_id=contribution.giver_id,
        beneficiary=BeneficiaryView(
            kind=contribution.beneficiary.kind, id=contribution.beneficiary.id
        ),
        group_id=contribution.group_id,
        status=contribution.status,
        version=contribution.version,
        minutes=claim.minutes,
        performed_on=claim.performed_on,
        activity=claim.activity,
        place_id=claim.place_id,
        note=claim.note if with_notes else None,
        counter=view_word(contribution.counter, with_notes=with_notes),
        ruling=view_word(contribution.ruling, with_notes=with_notes),
        logged_by=contribution.logged_by,
        logged_at=contribution.logged_at,
        confirmed_minutes=contribution.confirmed_minutes,
        confirmed_by=contribution.confirmed_by,
        decided_at=contribution.decided_at,
        transfer_id=contribution.transfer_id,
        reversal_id=contribution.reversal_id,
        reversed_at=contribution.reversed_at,
    )


def view_version(version: Version, *, with_notes: bool) -> VersionView:
    claim = version.claim
    return VersionView(
        version=version.number,
        side=version.side,
        minutes=claim.minutes,
        performed_on=claim.performed_on,
        activity=claim.activity,
        place_id=claim.place_id,
        note=claim.note if with_notes else None,
        written_by=version.written_by,
        written_at=version.written_at,
    )


def to_page(found: list[Contribution], limit: int, *, with_notes: bool) -> ContributionPage:
    return ContributionPage.of(
        found,
        limit,
        lambda contribution: view(contribution, with_notes=with_notes),
        lambda contribution: contribution.id,
    )


def view_flag(flag: rings.Flag) -> FlagView:
    return FlagView(
        rule=flag.rule,
        minutes=flag.minutes,
        steps=[
            StepView(
                giver_id=step.giver,
                confirmer_id=step.confirmer,
                minutes=step.minutes,
                confirmations=step.confirmations,
                percent=step.percent,
            )
            for step in flag.steps
        ],
        reason=ReasonView(**rings.reason(flag)),
    )
