"""A city's rules over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from common.db import Conn
from common.fields import Body, Slug
from common.idempotency import IdempotencyKey
from common.pages import Page
from common.problems import not_found
from common.web import StrictRoute
from timebank import store as ledger_store
from timebank.domain import Actor, Rejected
from timebank.routes import PAGE_DEFAULT, VERSION_MAX, CurrentActor, Database, Limit, once
from timebank.rules import service, store
from timebank.rules.domain import (
    CARRY_MINUTES_MAX,
    FLOOR_MINUTES_MIN,
    GRACE_DAYS_MAX,
    RENT_CENTS_PER_HOUR_MAX,
    RENT_MINUTES_MAX,
    Rules,
)

router = APIRouter(prefix="/v1", route_class=StrictRoute)


class RulesBody(Body):
    """All of a city's rules. `rent_cents_per_hour` null: minutes pay no rent here."""

    carry_minutes_max: Annotated[int, Field(strict=True, ge=0, le=CARRY_MINUTES_MAX)]
    grace_days: Annotated[int, Field(strict=True, ge=0, le=GRACE_DAYS_MAX)]
    rent_cents_per_hour: Annotated[int, Field(strict=True, ge=1, le=RENT_CENTS_PER_HOUR_MAX)] | None
    rent_minutes_max_per_month: Annotated[int, Field(strict=True, ge=0, le=RENT_MINUTES_MAX)]
    member_floor_minutes: Annotated[int, Field(strict=True, ge=FLOOR_MINUTES_MIN, le=0)]


class RulesView(BaseModel):
    """`number` counts the rules that the city set; 0: nobody set any yet, these are usual ones."""

    city_id: str
    number: int
    carry_minutes_max: int
    grace_days: int
    rent_cents_per_hour: int | None
    rent_minutes_max_per_month: int
    member_floor_minutes: int
    set_at: datetime | None


class RulesPage(Page[RulesView]):
    pass


def view_rules(rules: Rules) -> RulesView:
    return RulesView(
        city_id=rules.city_id,
        number=rules.number,
        carry_minutes_max=rules.carry_minutes_max,
        grace_days=rules.grace_days,
        rent_cents_per_hour=rules.rent_cents_per_hour,
        rent_minutes_max_per_month=rules.rent_minutes_max_per_month,
        member_floor_minutes=rules.member_floor_minutes,
        set_at=rules.set_at,
    )


async def check_city(conn: Conn, actor: Actor, city_id: str) -> None:
    """Raises Problem 404 unless the caller may know of the city's book."""
    if not actor.may_know_of(city_id) or not await ledger_store.has_book(conn, city_id):
        raise not_found("city")


@router.get("/books/{city_id}/rules")
async def get_rules(city_id: Slug, actor: CurrentActor, pool: Database) -> RulesView:
    """The rules by which a city's members are judged, for everybody in the city."""
    async with pool.acquire() as conn:
        await check_city(conn, actor, city_id)
        return view_rules(await store.find_rules(conn, city_id))


@router.get("/books/{city_id}/rules/history")
async def list_rules(
    city_id: Slug,
    actor: CurrentActor,
    pool: Database,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[int | None, Query(ge=1, le=VERSION_MAX)] = None,
) -> RulesPage:
    """All rules that the city ever set, the newest first."""
    async with pool.acquire() as conn:
        await check_city(conn, actor, city_id)
        rules = await store.list_rules(conn, city_id, before=cursor, limit=limit + 1)
    return RulesPage.of(rules, limit, view_rules, lambda one: one.number)


@router.put("/books/{city_id}/rules")
async def put_rules(
    city_id: Slug, body: RulesBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> RulesView:
    """Set all rules of a city. New accounts get the new floor; those that are open keep theirs."""
    wanted = Rules(city_id=city_id, **body.model_dump())

    async def decide(conn: Conn, now: datetime) -> Rules | Rejected:
        return await service.set_rules(conn, actor, wanted, now)

    return await once(request, actor, key, body, decide, view_rules, as_=RulesView)
