"""Pledges over HTTP."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BaseModel, Field

from common.db import Conn
from common.fields import Body, Day, Slug
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.pages import Page
from common.problems import invalid, not_found
from common.web import StrictRoute
from timebank.domain import Actor, Rejected
from timebank.pledges import service, store
from timebank.pledges.domain import (
    MINUTES_PER_MONTH_MAX,
    SKILLS_MAX,
    PeriodState,
    Pledge,
    check_right,
    month_of,
)
from timebank.routes import (
    PAGE_DEFAULT,
    CurrentActor,
    Database,
    Limit,
    TheClock,
    hidden,
    once,
    problem_of,
)

router = APIRouter(prefix="/v1", route_class=StrictRoute)

PledgeStatus = Literal["running", "ended"]


def unique(skills: list[str]) -> list[str]:
    if len(set(skills)) != len(skills):
        raise ValueError("must not name a skill twice")
    return skills


MinutesPerMonth = Annotated[int, Field(strict=True, ge=0, le=MINUTES_PER_MONTH_MAX)]
Skills = Annotated[list[Slug], Field(max_length=SKILLS_MAX), AfterValidator(unique)]


class PledgeBody(Body):
    """`member_id`: without it, the caller. The month in which the pledge starts owes in proportion
    to the days that are left of it."""

    pledge_id: UUID | None = None
    member_id: UUID | None = None
    minutes_per_month: MinutesPerMonth
    skills: Skills = Field(default_factory=list)
    starts_on: Day | None = None


class TermView(BaseModel):
    """From the month that begins on `from_month`; the last of those for the same month holds."""

    from_month: date
    minutes_per_month: int


class PledgeView(BaseModel):
    """`ends_before`: the first month that is not owed any more, null while it runs."""

    pledge_id: UUID
    member_id: UUID
    city_id: str
    status: PledgeStatus
    starts_on: date
    ends_before: date | None
    terms: list[TermView]
    skills: list[str]
    version: int


class PeriodView(BaseModel):
    """A month. Until the end of `grace_until` what is short can be made up without being lapsed."""

    month: date
    owed_minutes: int
    met_minutes: int
    short_minutes: int
    state: PeriodState
    grace_until: date


class PledgeDetail(PledgeView):
    """`minutes_per_month`: of this month. `carried_minutes`: given beyond all that is owed."""

    minutes_per_month: int
    carried_minutes: int
    periods: list[PeriodView]


class PledgePage(Page[PledgeView]):
    pass


def view_pledge(pledge: Pledge) -> PledgeView:
    return PledgeView(
        pledge_id=pledge.id,
        member_id=pledge.member_id,
        city_id=pledge.city_id,
        status="running" if pledge.running else "ended",
        starts_on=pledge.starts_on,
        ends_before=pledge.ends_before,
        terms=[
            TermView(from_month=term.from_month, minutes_per_month=term.minutes_per_month)
            for term in pledge.terms
        ],
        skills=list(pledge.skills),
        version=pledge.version,
    )


def own_id(actor: Actor) -> UUID:
    """The member id of the caller. Raises Problem 404 for one who is nobody's."""
    try:
        return UUID(actor.id)
    except ValueError:
        raise not_found("member") from None


@router.post("/pledges", status_code=201)
async def start_pledge(
    body: PledgeBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> PledgeView:
    """Pledge minutes of each month to the city; one pledge at a time. A steward may do it for
    somebody, and from a month of the past on."""
    member_id = body.member_id or own_id(actor)

    async def decide(conn: Conn, now: datetime) -> Pledge | Rejected:
        return await service.start(
            conn,
            actor,
            pledge_id=body.pledge_id or new_id(),
            member_id=member_id,
            minutes_per_month=body.minutes_per_month,
            skills=tuple(body.skills),
            starts_on=body.starts_on,
            now=now,
        )

    return await once(request, actor, key, body, decide, view_pledge, as_=PledgeView, status=201)


class PledgeChange(Body):
    """What is left out stays. Minutes change from the next month on, skills at once."""

    minutes_per_month: MinutesPerMonth | None = None
    skills: Skills | None = None


@router.patch("/pledges/{pledge_id}")
async def change_pledge(
    pledge_id: UUID, body: PledgeChange, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> PledgeView:
    """Pledge more or less from the next month on, or other skills."""

    async def decide(conn: Conn, now: datetime) -> Pledge | Rejected:
        return await service.change(
            conn,
            actor,
            pledge_id,
            minutes_per_month=body.minutes_per_month,
            skills=None if body.skills is None else tuple(body.skills),
            now=now,
        )

    return await once(request, actor, key, body, decide, view_pledge, as_=PledgeView)


@router.post("/pledges/{pledge_id}/end")
async def end_pledge(
    pledge_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> PledgeView:
    """End a pledge: the month that it is is the last one owed."""

    async def decide(conn: Conn, now: datetime) -> Pledge | Rejected:
        return await service.end(conn, actor, pledge_id, now)

    return await once(request, actor, key, None, decide, view_pledge, as_=PledgeView)


@router.get("/pledges")
async def list_pledges(
    actor: CurrentActor,
    pool: Database,
    member_id: UUID | None = None,
    city_id: Annotated[Slug | None, Query()] = None,
    status: PledgeStatus | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[UUID | None, "the id of the last one seen"] = None,
) -> PledgePage:
    """A member's pledges, for them; or those of a city, or of a member in it, for its stewards."""
    if member_id is None and city_id is None:
        raise invalid("query.member_id", "Name a member_id or a city_id.")
    if str(member_id) != actor.id:
        if city_id is not None and not actor.is_steward_of(city_id):
            raise hidden("city", actor, city_id)
        if not actor.steward or actor.city_id is None:
            raise not_found("member")
        city_id = actor.city_id
    async with pool.acquire() as conn:
        pledges = await store.list_pledges(
            conn,
            member_id=member_id,
            city_id=city_id,
            running=None if status is None else status == "running",
            after=cursor,
            limit=limit + 1,
        )
    return PledgePage.of(pledges, limit, view_pledge, lambda pledge: pledge.id)


@router.get("/pledges/{pledge_id}")
async def get_pledge(
    pledge_id: UUID, actor: CurrentActor, pool: Database, clock: TheClock
) -> PledgeDetail:
    """A pledge with its months, the oldest first; for the member and the stewards."""
    async with pool.acquire() as conn:
        pledge = await store.find_pledge(conn, pledge_id)
        if pledge is None:
            raise not_found("pledge")
        if refused := check_right(actor, pledge.member_id, pledge.city_id, "pledge"):
            raise problem_of(refused)
        dues = await service.find_dues_to(conn, pledge.member_id, pledge.city_id, clock())
    if dues is None:
        raise not_found("pledge")
    month = max(month_of(dues.today), month_of(pledge.starts_on))
    return PledgeDetail(
        **view_pledge(pledge).model_dump(),
        minutes_per_month=pledge.per_month(month),
        carried_minutes=dues.carried_minutes,
        periods=[
            PeriodView(
                month=period.month,
                owed_minutes=period.owed_minutes,
                met_minutes=period.met_minutes,
                short_minutes=period.short_minutes,
                state=period.state,
                grace_until=period.grace_until,
            )
            for period in dues.periods
            if pledge.covers(period.month)
        ],
    )
