"""Exemptions and the history of standings over HTTP."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, StringConstraints

from common.db import Conn
from common.fields import Body, Day, LongText
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.pages import Page
from common.problems import not_found
from common.web import StrictRoute
from timebank import store as ledger_store
from timebank.domain import Rejected
from timebank.pledges.domain import Exemption
from timebank.routes import (
    PAGE_DEFAULT,
    VERSION_MAX,
    CurrentActor,
    Database,
    Limit,
    TheClock,
    hidden,
    once,
)
from timebank.standings import exemptions, store
from timebank.standings.domain import Cause, StandingName

router = APIRouter(prefix="/v1", route_class=StrictRoute)

Reason = Annotated[LongText, StringConstraints(min_length=1)]


class ExemptionBody(Body):
    """`until`: the last day; without it, until it is ended."""

    reason: Reason
    until: Day | None = None


class ExemptView(BaseModel):
    """Whether a member owes nothing now. `until` null: until somebody ends it."""

    exempt: bool
    until: date | None


class ExemptionView(ExemptView):
    """What the stewards know beyond it; the reason only those of the city that granted it."""

    exemption_id: UUID | None = None
    from_on: date | None = None
    reason: str | None = None


def view_exempt(exemption: Exemption) -> ExemptView:
    # Without the reason: answers are kept beside their keys.
    return ExemptView(exempt=exemption.ended_on is None, until=exemption.until)


@router.post("/members/{member_id}/exemption", status_code=201)
async def grant_exemption(
    member_id: UUID, body: ExemptionBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ExemptView:
    """Exempt a member: they owe nothing, and their standing opens doors like a good one. By a
    steward of their city, not for themselves."""

    async def decide(conn: Conn, now: datetime) -> Exemption | Rejected:
        return await exemptions.grant(
            conn,
            actor,
            exemption_id=new_id(),
            member_id=member_id,
            reason=body.reason,
            until=body.until,
            now=now,
        )

    return await once(request, actor, key, body, decide, view_exempt, as_=ExemptView, status=201)


@router.delete("/members/{member_id}/exemption")
async def end_exemption(
    member_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ExemptView:
    """End a member's exemption today."""

    async def decide(conn: Conn, now: datetime) -> Exemption | Rejected:
        return await exemptions.end(conn, actor, member_id, now)

    return await once(request, actor, key, None, decide, view_exempt, as_=ExemptView)


@router.get("/members/{member_id}/exemption")
async def get_exemption(
    member_id: UUID, actor: CurrentActor, pool: Database, clock: TheClock
) -> ExemptionView:
    """Whether a member is exempt, for them; and why, for the stewards of the city that granted
    it."""
    async with pool.acquire() as conn:
        member = await ledger_store.find_member(conn, member_id)
        if member is None:
            raise not_found("member")
        is_steward = actor.is_steward_of(member.city_id)
        if not is_steward and actor.id != str(member_id):
            raise hidden("member", actor, member.city_id)
        today = await ledger_store.city_today(conn, member.city_id, clock())
        exemption = await exemptions.find_current(conn, member_id, today)
        if exemption is None:
            return ExemptionView(exempt=False, until=None)
        # A steward who is exempt is a member like another.
        if not is_steward or actor.id == str(member_id):
            return ExemptionView(exempt=True, until=exemption.until)
        reason = None
        if actor.is_steward_of(exemption.city_id):
            reason = await store.find_reason(conn, exemption.id)
        return ExemptionView(
            exempt=True,
            until=exemption.until,
            exemption_id=exemption.id,
            from_on=exemption.from_on,
            reason=reason,
        )


class ChangeView(BaseModel):
    """`month`: the one that was short. `cause` names no reason."""

    version: int
    city_id: str
    standing: StandingName
    cause: Cause
    month: date | None
    changed_at: datetime


class ChangePage(Page[ChangeView]):
    pass


@router.get("/standings/{member_id}/history")
async def list_history(
    member_id: UUID,
    actor: CurrentActor,
    pool: Database,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[int | None, Query(ge=1, le=VERSION_MAX)] = None,
) -> ChangePage:
    """When and why a member's standing changed, the newest first; for them and the stewards."""
    async with pool.acquire() as conn:
        member = await ledger_store.find_member(conn, member_id)
        if member is None:
            raise not_found("member")
        if actor.id != str(member_id) and not actor.is_steward_of(member.city_id):
            raise hidden("member", actor, member.city_id)
        changes = await store.list_history(conn, member_id, before=cursor, limit=limit + 1)
    return ChangePage.of(
        changes,
        limit,
        lambda change: ChangeView.model_validate(change, from_attributes=True),
        lambda change: change.version,
    )
