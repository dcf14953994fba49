"""The evacuation list, and the reset of anti-passback."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from access.presence import service
from common.auth import CurrentPrincipal
from common.fields import Body, ShortText
from common.idempotency import IdempotencyKey
from common.web import StrictRoute

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["presence"])


class ZoneAnswer(BaseModel):
    """`zone` null: inside, and in no zone that is known."""

    zone: str | None
    inside: int


class PersonAnswer(BaseModel):
    """Somebody inside: a member, or the card of a guest. `since`: their last movement."""

    member_id: UUID
    zone: str | None
    since: datetime


class EvacuationAnswer(BaseModel):
    """`people` is null unless the warden asked for them."""

    place_id: UUID
    at: datetime
    inside: int
    zones: list[ZoneAnswer]
    people: list[PersonAnswer] | None


class ResetBody(Body):
    member_id: UUID | None = None
    reason: ShortText


class ResetAnswer(BaseModel):
    """`member_id` null: everybody's."""

    reset_id: UUID
    place_id: UUID
    member_id: UUID | None
    reason: str
    reset_at: datetime


@router.get("/places/{place_id}/evacuation", summary="How many are inside, and for the warden who")
async def get_evacuation(
    place_id: UUID,
    request: Request,
    principal: CurrentPrincipal,
    members: Annotated[bool, Query(description="Also who: for the warden, and logged.")] = False,
) -> EvacuationAnswer:
    """Numbers by zone, for the team of the place and the operators and stewards of its city. Who is
    inside, by pseudonym, for the warden of the place alone; each such look is kept."""
    found = await service.evacuation(
        request.app.state.pool,
        request.app.state.pipe,
        principal,
        place_id,
        with_members=members,
        now=request.app.state.clock(),
    )
    people = None
    if found.people is not None:
        people = [
            PersonAnswer(member_id=UUID(one.member_id), zone=one.zone, since=one.since)
            for one in found.people
        ]
    return EvacuationAnswer(
        place_id=place_id,
        at=found.at,
        inside=found.inside,
        zones=[ZoneAnswer(zone=zone, inside=count) for zone, count in found.zones],
        people=people,
    )


@router.post(
    "/places/{place_id}/passback-resets",
    status_code=201,
    response_model=ResetAnswer,
    summary="Let somebody in again who never tapped out",
)
async def post_passback_reset(
    place_id: UUID,
    body: ResetBody,
    request: Request,
    principal: CurrentPrincipal,
    key: IdempotencyKey,
) -> JSONResponse:
    """What a member did until now, or everybody without `member_id`, is not held against them by
    the anti-passback of this place. For its team, and the operators and stewards of its city."""
    answer = await service.reset_passback(
        request.app.state.pool,
        request.app.state.pipe,
        principal,
        place_id,
        member_id=body.member_id,
        reason=body.reason,
        key=key,
        now=request.app.state.clock(),
    )
    return JSONResponse(answer.body, answer.status)
