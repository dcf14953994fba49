"""Agreements between cities over HTTP."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from common.fields import MINUTES_MAX, Body, Slug
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.problems import forbidden, not_found
from common.web import StrictRoute
from timebank.clearing.agreements import service, store
from timebank.clearing.agreements.store import Bond
from timebank.clearing.domain import PERMILLE_MAX, Agreement
from timebank.clearing.routes import TheVault, signing
from timebank.routes import CurrentActor, Database, once

router = APIRouter(prefix="/v1", route_class=StrictRoute)

LimitMinutes = Annotated[int, Field(strict=True, ge=0, le=MINUTES_MAX)]
Permille = Annotated[int, Field(strict=True, ge=0, le=PERMILLE_MAX)]


class ProposalBody(Body):
    """Limits in minutes: `limit_out_minutes` for what the members of `city_id` send, and
    `limit_in_minutes` for what they receive, each less what went the other way."""

    agreement_id: UUID | None = None
    city_id: Slug
    peer_city_id: Slug
    limit_out_minutes: LimitMinutes
    limit_in_minutes: LimitMinutes
    soft_percent: Annotated[int, Field(strict=True, ge=1, le=100)] = 80
    levy_out_permille: Permille = 0
    levy_in_permille: Permille = 0


class AcceptBody(Body):
    """The levies of the city that accepts, in thousandths, for its commons."""

    levy_out_permille: Permille = 0
    levy_in_permille: Permille = 0


class AgreementView(BaseModel):
    """`peer_key`: the Ed25519 key that is pinned, in hexadecimal; compare it with what the other
    city's stewards read to you. `own_key`: what you read to them; null until the city has one."""

    agreement_id: UUID
    city_id: str
    peer_city_id: str
    state: Literal["proposed", "active", "suspended", "ended"]
    proposed_by_us: bool
    suspended_by_us: bool
    suspended_by_peer: bool
    limit_out_minutes: int
    limit_in_minutes: int
    soft_percent: int
    levy_out_permille: int
    levy_in_permille: int
    peer_key: str
    own_key: str | None
    version: int
    changed_at: datetime


class AgreementChangeView(BaseModel):
    version: int
    change: str
    agreement: dict[str, Any]
    changed_by: str
    changed_at: datetime


class AgreementPage(BaseModel):
    items: list[AgreementView]


class HistoryPage(BaseModel):
    items: list[AgreementChangeView]


def view_bond(bond: Bond) -> AgreementView:
    agreement = bond.agreement
    return AgreementView(
        agreement_id=bond.agreement_id,
        city_id=bond.city_id,
        peer_city_id=agreement.peer_city_id,
        state=agreement.state,
        proposed_by_us=bond.proposed_by_us,
        suspended_by_us=bond.suspended_by_us,
        suspended_by_peer=bond.suspended_by_peer,
        limit_out_minutes=agreement.limit_out_minutes,
        limit_in_minutes=agreement.limit_in_minutes,
        soft_percent=agreement.soft_percent,
        levy_out_permille=agreement.levy_out_permille,
        levy_in_permille=agreement.levy_in_permille,
        peer_key=bond.peer_key.hex(),
        own_key=bond.own_key.hex() if bond.own_key else None,
        version=bond.version,
        changed_at=bond.changed_at,
    )


@router.post("/agreements", status_code=201)
async def propose(
    body: ProposalBody, key: IdempotencyKey, actor: CurrentActor, vault: TheVault, request: Request
) -> AgreementView:
    """Propose to another city that minutes may cross. For stewards."""
    agreement = Agreement(
        peer_city_id=body.peer_city_id,
        state="proposed",
        limit_out_minutes=body.limit_out_minutes,
        limit_in_minutes=body.limit_in_minutes,
        soft_percent=body.soft_percent,
        levy_out_permille=body.levy_out_permille,
        levy_in_permille=body.levy_in_permille,
    )
    agreement_id = body.agreement_id or new_id()
    return await once(
        request,
        actor,
        key,
        body,
        signing(
            lambda conn, now: service.propose(
                conn, vault, actor, body.city_id, agreement_id, agreement, now
            )
        ),
        view_bond,
        as_=AgreementView,
        status=201,
    )


@router.post("/agreements/{city_id}/{peer_city_id}/accept")
async def accept(
    city_id: Slug,
    peer_city_id: Slug,
    body: AcceptBody,
    key: IdempotencyKey,
    actor: CurrentActor,
    vault: TheVault,
    request: Request,
) -> AgreementView:
    """Accept what another city proposed. For stewards of `city_id`."""
    return await once(
        request,
        actor,
        key,
        body,
        signing(
            lambda conn, now: service.accept(
                conn,
                vault,
                actor,
                city_id,
                peer_city_id,
                levy_out_permille=body.levy_out_permille,
                levy_in_permille=body.levy_in_permille,
                now=now,
            )
        ),
        view_bond,
        as_=AgreementView,
    )


CHANGES = {"suspend": "suspended", "resume": "resumed", "end": "ended"}


@router.post("/agreements/{city_id}/{peer_city_id}/{change}")
async def change(
    city_id: Slug,
    peer_city_id: Slug,
    change: Literal["suspend", "resume", "end"],
    key: IdempotencyKey,
    actor: CurrentActor,
    vault: TheVault,
    request: Request,
) -> AgreementView:
    """Suspend, resume or end an agreement. For stewards of `city_id`; what is on its way still
    ends, and what was settled may still be taken back while it is suspended."""
    return await once(
        request,
        actor,
        key,
        None,
        signing(
            lambda conn, now: service.change(
                conn, vault, actor, city_id, peer_city_id, CHANGES[change], now
            )
        ),
        view_bond,
        as_=AgreementView,
    )


@router.get("/agreements")
async def list_agreements(
    actor: CurrentActor, pool: Database, city_id: Annotated[Slug | None, Query()] = None
) -> AgreementPage:
    """The agreements of a city, for whoever belongs to it; of all cities, for auditors."""
    wanted = city_id or (None if actor.auditor else actor.city_id)
    if wanted is None and not actor.auditor:
        raise forbidden()
    if wanted is not None and not actor.may_know_of(wanted):
        raise not_found("city")
    async with pool.acquire() as conn:
        return AgreementPage(
            items=[view_bond(bond) for bond in await store.list_bonds(conn, wanted)]
        )


@router.get("/agreements/{city_id}/{peer_city_id}/history")
async def agreement_history(
    city_id: Slug, peer_city_id: Slug, actor: CurrentActor, pool: Database
) -> HistoryPage:
    """Every state that an agreement was in. For stewards of the city, and auditors."""
    if not (actor.is_steward_of(city_id) or actor.auditor):
        raise forbidden() if actor.may_know_of(city_id) else not_found("agreement")
    async with pool.acquire() as conn:
        found = await store.list_history(conn, city_id, peer_city_id)
    return HistoryPage(items=[AgreementChangeView.model_validate(item) for item in found])
