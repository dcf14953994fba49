"""The keys of cities over HTTP: for anybody with a token; the city's stewards hand them over."""

from datetime import datetime, timedelta

from fastapi import APIRouter, Depends, Request
from pydantic import AwareDatetime, BaseModel, Field

from common.db import Conn
from common.fields import Body, Slug
from common.idempotency import IdempotencyKey
from common.problems import conflict, forbidden, not_found
from common.web import StrictRoute
from timebank.clearing import keys_store
from timebank.clearing.handover import Handover
from timebank.clearing.rotation import NotHandedOver, rotate
from timebank.clearing.routes import TheVault
from timebank.routes import CurrentActor, Database, current_actor, once

router = APIRouter(prefix="/v1/log", route_class=StrictRoute)

OVERLAP_HOURS = 168


class CityKeyView(BaseModel):
    """`from_size`: it signs the checkpoints of so many entries and more. `statement`: the signed
    note by which the key before handed over to it; none of the first."""

    public_key: str
    from_size: int
    statement: str | None


class CityKeysView(BaseModel):
    """All keys of a city, the oldest first; in hexadecimal."""

    city_id: str
    keys: list[CityKeyView]


class RotationBody(Body):
    """`overlap_hours`: how long messages under the old key are still believed; 0, which is a
    minute, when somebody else may have it."""

    overlap_hours: int = Field(default=OVERLAP_HOURS, ge=0, le=OVERLAP_HOURS, strict=True)


class RotationView(BaseModel):
    """The new key. `number`: 2 for the second."""

    city_id: str
    number: int
    public_key: str
    from_size: int
    old_believed_until: AwareDatetime


@router.get("/{city_id}/keys", dependencies=[Depends(current_actor)])
async def keys(city_id: Slug, pool: Database) -> CityKeysView:
    """The keys of a city that is known here, its own or another's."""
    async with pool.acquire() as conn:
        chain = await keys_store.own_chain(conn, city_id)
        chain = chain or await keys_store.peer_chain(conn, city_id)
    if chain is None:
        raise not_found("city")
    return CityKeysView(
        city_id=city_id, keys=[CityKeyView.model_validate(each) for each in chain.listed()]
    )


@router.post("/{city_id}/keys", status_code=201)
async def hand_over(
    city_id: Slug,
    body: RotationBody,
    key: IdempotencyKey,
    actor: CurrentActor,
    vault: TheVault,
    request: Request,
) -> RotationView:
    """Give the city a new key: the old one signs that it follows, and is gone. For stewards."""
    if not actor.is_steward_of(city_id):
        raise forbidden() if actor.may_know_of(city_id) else not_found("city")

    async def decide(conn: Conn, now: datetime) -> Handover:
        try:
            return await rotate(conn, vault, city_id, now, timedelta(hours=body.overlap_hours))
        except NotHandedOver as error:
            raise conflict("key_stays", f"The key stays: {error}.") from error

    def view(handover: Handover) -> RotationView:
        return RotationView(
            city_id=city_id,
            number=handover.number,
            public_key=handover.new_key.hex(),
            from_size=handover.from_size,
            old_believed_until=handover.until,
        )

    return await once(request, actor, key, body, decide, view, as_=RotationView, status=201)
