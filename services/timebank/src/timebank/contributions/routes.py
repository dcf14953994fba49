"""Contributions over HTTP."""

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import Field, model_validator

from common.db import Conn
from common.fields import Body, Day, LongText, Slug
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.problems import forbidden, invalid, not_found
from common.web import StrictRoute
from timebank import store as ledger_store
from timebank.contributions import rings, service, store
from timebank.contributions.domain import (
    GROUP_MAX,
    MINUTES_MAX,
    VERSIONS_MAX,
    Activity,
    Beneficiary,
    BeneficiaryKind,
    Claim,
    Contribution,
    Draft,
    Status,
    may_see,
)
from timebank.contributions.views import (
    ContributionPage,
    ContributionView,
    ContributionWhole,
    FlagPage,
    GroupView,
    to_page,
    view,
    view_flag,
    view_version,
)
from timebank.domain import Actor, Rejected
from timebank.routes import (
    PAGE_DEFAULT,
    CurrentActor,
    Database,
    Limit,
    TheClock,
    hidden,
    once,
)

router = APIRouter(prefix="/v1", route_class=StrictRoute)

EDGES_MAX = 20_000


Worked = Annotated[int, Field(strict=True, ge=1, le=MINUTES_MAX)]
WorkedOrNot = Annotated[int, Field(strict=True, ge=0, le=MINUTES_MAX)]
VersionNumber = Annotated[int, Field(strict=True, ge=1, le=VERSIONS_MAX)]


# ── What is asked ───────────────────────────────────────────────────────────────────────────────


class BeneficiaryBody(Body):
    """Whom it was for. A member and an organisation have an `id`; the commons, and people of
    outside (whom the commons stands for), have none."""

    kind: BeneficiaryKind
    id: UUID | None = None

    @model_validator(mode="after")
    def has_id_or_not(self) -> "BeneficiaryBody":
        if (self.kind in ("member", "organisation")) != (self.id is not None):
            raise ValueError("id goes with a member or an organisation, and with nothing else")
        return self


class ContributionBody(Body):
    """`minutes` of work on a day of the city. Without `giver_id`, the caller's own."""

    contribution_id: UUID | None = None
    giver_id: UUID | None = None
    beneficiary: BeneficiaryBody
    minutes: Worked
    performed_on: Day
    activity: Activity
    place_id: UUID | None = None
    note: LongText | None = None


class GroupBody(Body):
    """What many gave to one, or one gave to many: all of it is logged, or none."""

    group_id: UUID | None = None
    items: Annotated[list[ContributionBody], Field(min_length=1, max_length=GROUP_MAX)]


class EditBody(Body):
    """What is left out stays; null empties `place_id` and `note`."""

    minutes: Worked = 1
    performed_on: Day = date.min
    activity: Activity = "other"
    place_id: UUID | None = None
    note: LongText | None = None


class VersionBody(Body):
    """`version` is the one that was read; 409 `version_changed` when it is not the last."""

    version: VersionNumber


class OtherMinutesBody(Body):
    """How long it was; 0: not at all."""

    minutes: WorkedOrNot
    note: LongText | None = None


# ── Logging ─────────────────────────────────────────────────────────────────────────────────────


def to_draft(body: ContributionBody, actor: Actor, field: str) -> Draft:
    """Raises Problem 422 when nobody is named who gave, and the caller is no member."""
    giver_id = body.giver_id or own_id(actor)
    if giver_id is None:
        raise invalid(f"{field}.giver_id", "Say who gave.")
    return Draft(
        id=body.contribution_id or new_id(),
        giver_id=giver_id,
        beneficiary=Beneficiary(body.beneficiary.kind, body.beneficiary.id),
        claim=Claim(
            minutes=body.minutes,
            performed_on=body.performed_on,
            activity=body.activity,
            place_id=body.place_id,
            note=body.note or None,
        ),
        field=field,
    )


def own_id(actor: Actor) -> UUID | None:
    """The caller's member id; a service has none."""
    try:
        return UUID(actor.id)
    except ValueError:
        return None


@router.post("/contributions", status_code=201)
async def log_contribution(
    body: ContributionBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ContributionView:
    """Say what you did, or as a steward what somebody of the city did. Done once per key."""
    draft = to_draft(body, actor, "body")

    async def decide(conn: Conn, now: datetime) -> Contribution | Rejected:
        logged = await service.log(conn, actor, [draft], now=now)
        return logged if isinstance(logged, Rejected) else logged[0]

    return await once(request, actor, key, body, decide, view, as_=ContributionView, status=201)


@router.post("/contributions/group", status_code=201)
async def log_group(
    body: GroupBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> GroupView:
    """Say what many gave to one, or one gave to many: by one of the givers, or a steward."""
    group_id = body.group_id or new_id()
    drafts = [to_draft(item, actor, f"body.items.{place}") for place, item in enumerate(body.items)]

    async def decide(conn: Conn, now: datetime) -> tuple[Contribution, ...] | Rejected:
        return await service.log(conn, actor, drafts, group_id=group_id, now=now)

    def view_group(logged: tuple[Contribution, ...]) -> GroupView:
        return GroupView(group_id=group_id, items=[view(item) for item in logged])

    return await once(request, actor, key, body, decide, view_group, as_=GroupView, status=201)


# ── What happens to one ─────────────────────────────────────────────────────────────────────────


@router.patch("/contributions/{contribution_id}")
async def edit_contribution(
    contribution_id: UUID,
    body: EditBody,
    request: Request,
    key: IdempotencyKey,
    actor: CurrentActor,
) -> ContributionView:
    """Say it otherwise, before it is confirmed: a new version, and the ones before are kept."""
    changes = body.model_dump(exclude_unset=True)
    if not changes:
        raise invalid("body", "Say what changes.")

    def change(claim: Claim) -> Claim:
        changed = replace(claim, **changes)
        return replace(changed, note=changed.note or None)

    async def decide(conn: Conn, now: datetime) -> Contribution | Rejected:
        return await service.edit(conn, contribution_id, change, actor, now)

    return await once(request, actor, key, body, decide, view, as_=ContributionView)


@router.post("/contributions/{contribution_id}/confirm")
async def confirm_contribution(
    contribution_id: UUID,
    body: VersionBody,
    request: Request,
    key: IdempotencyKey,
    actor: CurrentActor,
) -> ContributionView:
    """Agree, as who it was done for or for them: the minutes are given."""

    async def decide(conn: Conn, now: datetime) -> Contribution | Rejected:
        return await service.confirm(
            conn, contribution_id, version=body.version, actor=actor, now=now, new_id=new_id
        )

    return await once(request, actor, key, body, decide, view, as_=ContributionView)


@router.post("/contributions/{contribution_id}/dispute")
async def dispute_contribution(
    contribution_id: UUID,
    body: OtherMinutesBody,
    request: Request,
    key: IdempotencyKey,
    actor: CurrentActor,
) -> ContributionView:
    """Say how long it was, as who it was done for or for them. Both versions are kept."""

    async def decide(conn: Conn, now: datetime) -> Contribution | Rejected:
        return await service.dispute(
            conn,
            contribution_id,
            minutes=body.minutes,
            note=body.note or None,
            actor=actor,
            now=now,
        )

    return await once(request, actor, key, body, decide, view, as_=ContributionView)


@router.post("/contributions/{contribution_id}/accept")
async def accept_contribution(
    contribution_id: UUID,
    body: VersionBody,
    request: Request,
    key: IdempotencyKey,
    actor: CurrentActor,
) -> ContributionView:
    """Take the other's word, as who gave: those minutes are given, or none if they say none."""

    async def decide(conn: Conn, now: datetime) -> Contribution | Rejected:
        return await service.accept(
            conn, contribution_id, version=body.version, actor=actor, now=now, new_id=new_id
        )

    return await once(request, actor, key, body, decide, view, as_=ContributionView)


@router.post("/contributions/{contribution_id}/rule")
async def rule_contribution(
    contribution_id: UUID,
    body: OtherMinutesBody,
    request: Request,
    key: IdempotencyKey,
    actor: CurrentActor,
) -> ContributionView:
    """Settle a dispute, as a mediator of the city who is no party. 0 minutes: refused."""

    async def decide(conn: Conn, now: datetime) -> Contribution | Rejected:
        return await service.rule(
            conn,
            contribution_id,
            minutes=body.minutes,
            note=body.note or None,
            actor=actor,
            now=now,
            new_id=new_id,
        )

    return await once(request, actor, key, body, decide, view, as_=ContributionView)


@router.post("/contributions/{contribution_id}/withdraw")
async def withdraw_contribution(
    contribution_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ContributionView:
    """Take back what was not confirmed yet, as who gave or logged it."""

    async def decide(conn: Conn, now: datetime) -> Contribution | Rejected:
        return await service.withdraw(conn, contribution_id, actor, now)

    return await once(request, actor, key, None, decide, view, as_=ContributionView)


@router.post("/contributions/{contribution_id}/reverse")
async def reverse_contribution(
    contribution_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ContributionView:
    """Take back what was confirmed, as a steward who is no party: the minutes go back, with what
    was counted of them towards a pledge."""

    async def decide(conn: Conn, now: datetime) -> Contribution | Rejected:
        return await service.reverse(conn, contribution_id, actor, now, new_id)

    return await once(request, actor, key, None, decide, view, as_=ContributionView)


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────


@router.get("/contributions")
async def list_contributions(
    actor: CurrentActor,
    pool: Database,
    member_id: UUID | None = None,
    role: Literal["giver", "beneficiary"] | None = None,
    city_id: Annotated[Slug | None, Query()] = None,
    status: Status | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[UUID | None, "the id of the last one seen"] = None,
) -> ContributionPage:
    """Contributions, the last logged first: a member's own, or those of a city for its stewards,
    its mediators (what was ever in dispute) and auditors (without notes)."""
    if member_id is None and city_id is None:
        raise invalid("query.member_id", "Name a member_id or a city_id.")
    if role is not None and member_id is None:
        raise invalid("query.role", "A role is that of a member_id.")
    own = member_id is not None and str(member_id) == actor.id
    disputed = False
    if not own and not actor.auditor:
        if city_id not in (None, actor.city_id) or actor.city_id is None:
            raise not_found("city")
        if not (actor.steward or actor.mediator):
            raise forbidden("These contributions are not yours.")
        city_id = actor.city_id
        disputed = not actor.steward
    narrow = store.Filter(
        giver_id=member_id if role == "giver" else None,
        beneficiary_id=member_id if role == "beneficiary" else None,
        party_id=member_id if role is None else None,
        city_id=city_id,
        status=status,
        disputed=disputed,
    )
    async with pool.acquire() as conn:
        found = await store.list_contributions(conn, narrow, before=cursor, limit=limit + 1)
    of_own_city = city_id is not None and actor.city_id == city_id
    with_notes = own or (of_own_city and (actor.steward or disputed))
    return to_page(found, limit, with_notes=with_notes)


@router.get("/contributions/to-confirm")
async def list_to_confirm(
    actor: CurrentActor,
    pool: Database,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[UUID | None, "the id of the last one seen"] = None,
) -> ContributionPage:
    """What waits for the caller's word: done for them, or for what their roles speak for."""
    kinds: set[BeneficiaryKind] = set()
    if actor.steward or actor.operator:
        kinds.add("organisation")
    if actor.steward or actor.connector or actor.animator:
        kinds |= {"commons", "outsider"}
    async with pool.acquire() as conn:
        found = await store.list_to_confirm(
            conn,
            actor_id=actor.id,
            city_id=actor.city_id,
            kinds=kinds,
            before=cursor,
            limit=limit + 1,
        )
    return to_page(found, limit, with_notes=True)


@router.get("/contributions/flags")
async def list_flags(
    city_id: Annotated[Slug, Query()], actor: CurrentActor, pool: Database, clock: TheClock
) -> FlagPage:
    """Rings of mutual confirmation, for the city's stewards and auditors; nothing is blocked.

    The rules are those of `contributions/rings.py`, and each flag says why it is there.
    """
    if not actor.is_steward_of(city_id) and not actor.auditor:
        raise hidden("city", actor, city_id)
    async with pool.acquire() as conn:
        if not await ledger_store.has_book(conn, city_id):
            raise not_found("city")
        today = await ledger_store.city_today(conn, city_id, clock())
        edges = await store.list_edges(
            conn, city_id, since=today - rings.WINDOW + timedelta(days=1), limit=EDGES_MAX + 1
        )
    flags = rings.find_rings(edges[:EDGES_MAX], today)
    return FlagPage(
        city_id=city_id,
        until=today,
        days=rings.WINDOW.days,
        complete=len(edges) <= EDGES_MAX,
        items=[view_flag(flag) for flag in flags],
    )


@router.get("/contributions/{contribution_id}")
async def get_contribution(
    contribution_id: UUID, actor: CurrentActor, pool: Database
) -> ContributionWhole:
    """A contribution with all that was said of it, for both sides, who speaks for them, stewards
    and, in a dispute, mediators; an auditor sees it without notes."""
    async with pool.acquire() as conn:
        contribution = await store.find_contribution(conn, contribution_id)
        if contribution is None:
            raise not_found("contribution")
        versions = await store.list_versions(conn, contribution_id)
    concerned = may_see(contribution, actor)
    if not concerned and not actor.auditor:
        raise hidden("contribution", actor, contribution.city_id)
    return ContributionWhole(
        **view(contribution, with_notes=concerned).model_dump(),
        versions=[view_version(version, with_notes=concerned) for version in versions],
    )
