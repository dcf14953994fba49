"""The rules of contributions. Pure, like those of transfers.

Somebody of the city worked for another, for an organisation, for the commons or for people of
outside, and says so. Nobody's word alone makes minutes: those they worked for confirm, or say
otherwise, and where the two do not agree, either takes the other's word or a mediator rules.
Everything that was said is kept, as numbered versions; who agrees names the version they read.

    logged ──▶ confirmed ──▶ reversed
       │  ╲        ▲
       │   ▶ disputed ──▶ refused
       ▼        │
    withdrawn ◀─┘
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Literal
from uuid import UUID

from timebank.domain import Actor, Rejected

MINUTES_MAX = 1440  # one day; what took longer is as many contributions as it has days
AGE_MAX = timedelta(days=366)
GROUP_MAX = 50
VERSIONS_MAX = 20

Activity = Literal[
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
]
BeneficiaryKind = Literal["member", "organisation", "commons", "outsider"]
Status = Literal["logged", "disputed", "confirmed", "refused", "withdrawn", "reversed"]
Side = Literal["giver", "beneficiary", "mediator"]

OPEN: frozenset[Status] = frozenset({"logged", "disputed"})
NOT_YOURS = Rejected("forbidden", "You log what you did yourself; a steward does for others.")
UNKNOWN_MEMBER = Rejected("unknown_member", "There is no such member in this city.")
# What serves all of the city, and so counts towards a pledge.
FOR_ALL: frozenset[BeneficiaryKind] = frozenset({"organisation", "commons", "outsider"})


@dataclass(frozen=True, slots=True)
class Beneficiary:
    """Whom it was for; a member and an organisation have an id."""

    kind: BeneficiaryKind
    id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody says was done: for how long (minutes), on which day of the city."""

    minutes: int
    performed_on: date
    activity: Activity
    place_id: UUID | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """A claim as it was said: its number among those of the contribution, who said it, when."""

    number: int
    side: Side
    claim: Claim
    written_by: str
    written_at: datetime


@dataclass(frozen=True, slots=True)
class Contribution:
    """A contribution and the last word of each side.

    `version` numbers the latest of all versions; `state_version` counts every change.
    """

    id: UUID
    city_id: str
    giver_id: UUID
    beneficiary: Beneficiary
    logged_by: str
    logged_at: datetime
    status: Status
    state_version: int
    version: int
    given: Version
    # What the beneficiary says instead, and what a mediator ruled.
    counter: Version | None = None
    ruling: Version | None = None
    group_id: UUID | None = None
    confirmed_minutes: int | None = None
    confirmed_by: str | None = None
    decided_at: datetime | None = None
    transfer_id: UUID | None = None
    reversal_id: UUID | None = None
    reversed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A contribution that somebody wants to log. `field` is where the request says it."""

    id: UUID
    giver_id: UUID
    beneficiary: Beneficiary
    claim: Claim
    field: str = "body"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known in a city of what some drafts name. An erased member is not."""

    city_id: str
    today: date
    members: frozenset[UUID] = frozenset()
    organisations: frozenset[UUID] = frozenset()
    places: frozenset[UUID] = frozenset()


# ── Logging ─────────────────────────────────────────────────────────────────────────────────────


def log_contributions(
    drafts: Sequence[Draft], actor: Actor, known: Known, *, group_id: UUID | None, now: datetime
) -> tuple[Contribution, ...] | Rejected:
    """Log one contribution, or several together: all of them or none.

    Together means that many gave to one, or one gave to many; one of the givers says it for all,
    or a steward of the city. Each of them can withdraw their own.
    """
    if not may_log(drafts, actor, known.city_id):
        return NOT_YOURS
    givers = {draft.giver_id for draft in drafts}
    beneficiaries = {draft.beneficiary for draft in drafts}
    if min(len(givers), len(beneficiaries)) > 1:
        return Rejected(
            "mixed_group",
            "Together go what many gave to one, or what one gave to many.",
            field="body.items",
        )
    for draft in drafts:
        if (refused := check_draft(draft, known)) is not None:
            return refused
    return tuple(log(draft, actor, known.city_id, group_id=group_id, now=now) for draft in drafts)


def may_log(drafts: Sequence[Draft], actor: Actor, city_id: str) -> bool:
    return actor.is_steward_of(city_id) or any(str(draft.giver_id) == actor.id for draft in drafts)


def check_draft(draft: Draft, known: Known) -> Rejected | None:
    """Whether the city knows whom and what the draft names."""
    if draft.giver_id not in known.members:
        return replace(UNKNOWN_MEMBER, field=f"{draft.field}.giver_id")
    to = draft.beneficiary
    if to.kind == "member" and to.id == draft.giver_id:
        return Rejected(
            "same_account",
            "What you do for yourself is not a contribution.",
            field=f"{draft.field}.beneficiary.id",
        )
    ids = {"member": known.members, "organisation": known.organisations}.get(to.kind)
    if ids is not None and to.id not in ids:
        return Rejected(
            "unknown_beneficiary",
            f"There is no such {to.kind} in this city.",
            field=f"{draft.field}.beneficiary.id",
        )
    return check_claim(draft.claim, known, draft.field)


def check_claim(claim: Claim, known: Known, field: str) -> Rejected | None:
    if not 1 <= claim.minutes <= MINUTES_MAX:
        return Rejected(
            "invalid_minutes",
            f"A contribution is of 1 to {MINUTES_MAX} minutes.",
            field=f"{field}.minutes",
        )
    if not known.today - AGE_MAX <= claim.performed_on <= known.today:
        return Rejected(
            "invalid_day",
            f"The day is today in the city, or one of the {AGE_MAX.days} before.",
            field=f"{field}.performed_on",
        )
    if claim.place_id is not None and claim.place_id not in known.places:
        return Rejected(
            "unknown_place", "There is no such place in this city.", field=f"{field}.place_id"
        )
    return None


def log(
    draft: Draft, actor: Actor, city_id: str, *, group_id: UUID | None, now: datetime
) -> Contribution:
    return Contribution(
        id=draft.id,
        city_id=city_id,
        giver_id=draft.giver_id,
        beneficiary=draft.beneficiary,
        logged_by=actor.id,
        logged_at=now,
        status="logged",
        state_version=1,
        version=1,
        given=Version(1, "giver", draft.claim, actor.id, now),
        group_id=group_id,
    )


# ── Who may do what ─────────────────────────────────────────────────────────────────────────────


def is_giver(contribution: Contribution, actor: Actor) -> bool:
    return str(contribution.giver_id) == actor.id


def is_beneficiary(contribution: Contribution, actor: Actor) -> bool:
    return contribution.beneficiary.kind == "member" and (
        str(contribution.beneficiary.id) == actor.id
    )


def speaks_for_giver(contribution: Contribution, actor: Actor) -> bool:
    """Who worked, and who said it for them: neither can be who confirms it."""
    return actor.id in (str(contribution.giver_id), contribution.logged_by)


def speaks_for_beneficiary(contribution: Contribution, actor: Actor) -> bool:
    """Who may say, for those it was done for, whether it was.

    A member themself, or a steward of the city for somebody who cannot; an organisation by a
    steward or operator; what was done for all, or for people of outside, by a steward, a connector
    or an animator.
    """
    if speaks_for_giver(contribution, actor):
        return False
    return is_beneficiary(contribution, actor) or has_say(contribution, actor)


def has_say(contribution: Contribution, actor: Actor) -> bool:
    """Whether a role in the city lets them speak for whom it was done for."""
    if actor.city_id != contribution.city_id:
        return False
    match contribution.beneficiary.kind:
        case "member":
            return actor.steward
        case "organisation":
            return actor.steward or actor.operator
        case "commons" | "outsider":
            return actor.steward or actor.connector or actor.animator


def is_party(contribution: Contribution, actor: Actor) -> bool:
    """Who gains or loses by it, or has said anything of it yet."""
    said = contribution.counter.written_by if contribution.counter else None
    return (
        speaks_for_giver(contribution, actor)
        or is_beneficiary(contribution, actor)
        or said == actor.id
    )


def may_see(contribution: Contribution, actor: Actor) -> bool:
    """Both sides, who speaks for them, the stewards, and in a dispute the mediators."""
    return (
        speaks_for_giver(contribution, actor)
        or is_beneficiary(contribution, actor)
        or has_say(contribution, actor)
        or actor.is_steward_of(contribution.city_id)
        or may_mediate(contribution, actor)
    )


def may_mediate(contribution: Contribution, actor: Actor) -> bool:
    """Mediators see what was ever in dispute, and nothing else for being mediators."""
    return (
        actor.mediator
        and actor.city_id == contribution.city_id
        and contribution.counter is not None
    )


def not_theirs(contribution: Contribution, actor: Actor, detail: str) -> Rejected:
    """Forbidden to those who may know of it; absent for all others."""
    if may_see(contribution, actor) or actor.may_know_of(contribution.city_id):
        return Rejected("forbidden", detail)
    return Rejected("not_found", "There is no such contribution.")


def check_open(contribution: Contribution) -> Rejected | None:
    if contribution.status not in OPEN:
        return Rejected("contribution_ended", f"This contribution is {contribution.status}.")
    return None


def check_room(contribution: Contribution) -> Rejected | None:
    """The last version is kept for the ruling, so that there is always a way to the end."""
    if contribution.version >= VERSIONS_MAX - 1:
        return Rejected(
            "too_many_versions",
            "Enough was said of this contribution: take the other's word, or ask a mediator.",
        )
    return None


def check_version(contribution: Contribution, version: int) -> Rejected | None:
    """Nobody agrees to what they have not read."""
    if version != contribution.version:
        return Rejected(
            "version_changed",
            f"This contribution is at version {contribution.version} now: read it again.",
            field="body.version",
        )
    return None


# ── What happens to one ─────────────────────────────────────────────────────────────────────────


def edit(
    contribution: Contribution, claim: Claim, actor: Actor, known: Known, now: datetime
) -> Contribution | Rejected:
    """The giver's side says it otherwise; a day that stays the same may have grown old."""
    if not speaks_for_giver(contribution, actor):
        return not_theirs(contribution, actor, "Who logged a contribution can change it.")
    refused = check_open(contribution) or check_room(contribution)
    if refused is None:
        # What it says already was known once, and is not asked again.
        before = contribution.given.claim
        same_day = claim.performed_on == before.performed_on
        same_place = claim.place_id == before.place_id
        refused = check_claim(
            replace(
                claim,
                performed_on=known.today if same_day else claim.performed_on,
                place_id=None if same_place else claim.place_id,
            ),
            known,
            "body",
        )
    if refused is not None:
        return refused
    return say(contribution, "giver", claim, actor, now)


def dispute(
    contribution: Contribution, minutes: int, note: str | None, actor: Actor, now: datetime
) -> Contribution | Rejected:
    """The beneficiary's side says how long it was for them (0: not at all)."""
    if not speaks_for_beneficiary(contribution, actor):
        return not_for_beneficiary(contribution, actor)
    if (refused := check_open(contribution) or check_room(contribution)) is not None:
        return refused
    if minutes == contribution.given.claim.minutes:
        return Rejected(
            "nothing_disputed", "This is what the giver says: confirm it.", field="body.minutes"
        )
    claim = replace(contribution.given.claim, minutes=minutes, note=note)
    return replace(say(contribution, "beneficiary", claim, actor, now), status="disputed")


def confirm(
    contribution: Contribution, version: int, actor: Actor, now: datetime
) -> Contribution | Rejected:
    """The beneficiary's side agrees to what the giver said last, also after a dispute."""
    if not speaks_for_beneficiary(contribution, actor):
        return not_for_beneficiary(contribution, actor)
    refused = check_open(contribution) or check_version(contribution, version)
    if refused is not None:
        return refused
    return decide(contribution, contribution.given.claim.minutes, actor.id, now)


def accept(
    contribution: Contribution, version: int, actor: Actor, now: datetime
) -> Contribution | Rejected:
    """The giver agrees to what the beneficiary's side said last."""
    if not is_giver(contribution, actor):
        return not_theirs(contribution, actor, "Only the giver can take the other's word.")
    if (refused := check_open(contribution)) is not None:
        return refused
    if contribution.counter is None:
        return Rejected("not_disputed", "Nobody has said otherwise: there is nothing to accept.")
    if (refused := check_version(contribution, version)) is not None:
        return refused
    counter = contribution.counter
    return decide(contribution, counter.claim.minutes, counter.written_by, now)


def rule(
    contribution: Contribution, minutes: int, note: str | None, actor: Actor, now: datetime
) -> Contribution | Rejected:
    """A mediator of the city who is no party settles a dispute, within what the two sides said."""
    if not (actor.mediator and actor.city_id == contribution.city_id):
        return not_theirs(contribution, actor, "Only a mediator of the city can rule.")
    if is_party(contribution, actor):
        return Rejected("forbidden", "You are a party: another mediator rules.")
    if (refused := check_open(contribution)) is not None:
        return refused
    if contribution.counter is None:
        return Rejected("not_disputed", "Nobody has said otherwise: there is nothing to rule.")
    most = max(contribution.given.claim.minutes, contribution.counter.claim.minutes)
    if minutes > most:
        return Rejected(
            "exceeds_claim", f"Neither side said more than {most} minutes.", field="body.minutes"
        )
    claim = replace(contribution.given.claim, minutes=minutes, note=note)
    ruled = say(contribution, "mediator", claim, actor, now)
    return replace(
        decide(ruled, minutes, actor.id, now), state_version=contribution.state_version + 1
    )


def withdraw(contribution: Contribution, actor: Actor, now: datetime) -> Contribution | Rejected:
    """The giver's side takes it back before it is minutes."""
    if not speaks_for_giver(contribution, actor):
        return not_theirs(contribution, actor, "Who logged a contribution can withdraw it.")
    if (refused := check_open(contribution)) is not None:
        return refused
    return end(contribution, now)


def end(contribution: Contribution, now: datetime) -> Contribution:
    """Withdrawn, whoever asked for it."""
    return replace(
        contribution,
        status="withdrawn",
        decided_at=now,
        state_version=contribution.state_version + 1,
    )


def reverse(contribution: Contribution, actor: Actor, now: datetime) -> Contribution | Rejected:
    """A steward of the city who neither gave nor received takes a confirmed one back."""
    if not actor.is_steward_of(contribution.city_id):
        return not_theirs(contribution, actor, "Only a steward of the city can take this back.")
    if is_giver(contribution, actor) or is_beneficiary(contribution, actor):
        return Rejected("forbidden", "You are a party: another steward takes this back.")
    if contribution.status == "reversed":
        return Rejected("already_reversed", "This contribution was taken back before.")
    if contribution.status != "confirmed":
        return Rejected("not_confirmed", f"This contribution is {contribution.status}.")
    return replace(
        contribution,
        status="reversed",
        reversed_at=now,
        state_version=contribution.state_version + 1,
    )


def not_for_beneficiary(contribution: Contribution, actor: Actor) -> Rejected:
    if speaks_for_giver(contribution, actor):
        return Rejected("self_confirmation", "Another than who did or logged it says whether.")
    return not_theirs(contribution, actor, "Those it was done for say whether it was.")


def say(
    contribution: Contribution, side: Side, claim: Claim, actor: Actor, now: datetime
) -> Contribution:
    """The contribution with one more version."""
    version = Version(contribution.version + 1, side, claim, actor.id, now)
    said = replace(
        contribution, version=version.number, state_version=contribution.state_version + 1
    )
    match side:
        case "giver":
            return replace(said, given=version)
        case "beneficiary":
            return replace(said, counter=version)
        case "mediator":
            return replace(said, ruling=version)


def decide(
    contribution: Contribution, minutes: int, confirmed_by: str, now: datetime
) -> Contribution:
    """Confirmed with these minutes, or refused when there are none."""
    decided = replace(contribution, decided_at=now, state_version=contribution.state_version + 1)
    if minutes == 0:
        return replace(decided, status="refused")
    return replace(
        decided, status="confirmed", confirmed_minutes=minutes, confirmed_by=confirmed_by
    )


def exchanged(draft: Draft, city_id: str, receiver_id: UUID, now: datetime) -> Contribution:
    """What both sides had agreed beforehand and say is done: logged and confirmed at once."""
    logged = Contribution(
        id=draft.id,
        city_id=city_id,
        giver_id=draft.giver_id,
        beneficiary=draft.beneficiary,
        logged_by=str(draft.giver_id),
        logged_at=now,
        status="logged",
        state_version=0,
        version=1,
        given=Version(1, "giver", draft.claim, str(draft.giver_id), now),
    )
    return decide(logged, draft.claim.minutes, str(receiver_id), now)
