"""Netting over HTTP."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, Field

from common.auth import CurrentPrincipal, Principal
from common.db import Conn
from common.fields import Body, Slug
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.pages import Page
from common.problems import forbidden, not_found
from common.web import StrictRoute
from timebank.clearing.routes import TheVault, signing
from timebank.domain import Rejected
from timebank.netting import domain, planning, service, store
from timebank.netting.planning import Move
from timebank.netting.store import Answer, Kept
from timebank.routes import PAGE_DEFAULT, CurrentActor, Database, Limit, once, to_actor

router = APIRouter(prefix="/v1", route_class=StrictRoute)

CITIES_MAX = 100

State = Literal["proposed", "agreed", "posted", "refused", "abandoned", "expired"]


class NettingBody(Body):
    """`city_id`: which city decides, of those whose books are here; the first that takes part if
    left out. `cities`: only these take part. `expires_at`: until when cities may agree, a week if
    left out."""

    netting_id: UUID | None = None
    city_id: Slug | None = None
    cities: Annotated[list[Slug], Field(min_length=3, max_length=CITIES_MAX)] | None = None
    expires_at: AwareDatetime | None = None


class MoveView(BaseModel):
    """`debtor` owed `creditor` `owed_minutes` when it was proposed, and will owe `left_minutes`."""

    debtor: str
    creditor: str
    minutes: int
    owed_minutes: int
    left_minutes: int


class CycleView(BaseModel):
    """Each city owes the next one, the last one the first; each `minutes` less."""

    cities: list[str]
    minutes: int


class WordsView(BaseModel):
    fr: str
    en: str


class PlanView(BaseModel):
    """`minutes`: of debt that is cleared in all."""

    minutes: int
    cities: list[str]
    cycles: list[CycleView]
    moves: list[MoveView]
    explanation: WordsView


class NettingAnswerView(BaseModel):
    city_id: str
    agreed: bool
    heard_at: datetime


class NettingView(PlanView):
    """A netting as `city_id` keeps it. `state`: proposed, agreed (bound, and waiting for the
    decision), posted, refused, abandoned, expired. `answers` and `waiting_for` are known where it
    is decided, else null."""

    netting_id: UUID
    city_id: str
    decider: str
    state: State
    expires_at: datetime
    proposed_at: datetime
    answered_at: datetime | None
    decided_at: datetime | None
    transfer_id: UUID | None
    answers: list[NettingAnswerView] | None
    waiting_for: list[str] | None


class NettingPage(Page[NettingView]):
    pass


def view_moves(moves: tuple[Move, ...]) -> PlanView:
    return PlanView(
        minutes=sum(move.minutes for move in moves),
        cities=sorted({city for move in moves for city in (move.debtor, move.creditor)}),
        cycles=[
            CycleView(cities=list(cycle.cities), minutes=cycle.minutes)
            for cycle in planning.cycles_of(moves)
        ],
        moves=[
            MoveView(
                debtor=move.debtor,
                creditor=move.creditor,
                minutes=move.minutes,
                owed_minutes=move.owed_minutes,
                left_minutes=move.left_minutes,
            )
            for move in moves
        ],
        explanation=WordsView(**planning.explain(moves)),
    )


def view_kept(kept: Kept, answers: list[Answer] | None) -> NettingView:
    netting, plan = kept.netting, kept.netting.plan
    missing = None
    if answers is not None:
        agreed = {answer.from_city for answer in answers if answer.agreed}
        if netting.state in ("agreed", "posted"):
            agreed.add(netting.city_id)
        missing = sorted(set(plan.cities) - agreed) if netting.open else []
    return NettingView(
        **view_moves(plan.moves).model_dump(),
        netting_id=plan.netting_id,
        city_id=netting.city_id,
        decider=plan.decider,
        state=netting.state,
        expires_at=plan.expires_at,
        proposed_at=kept.proposed_at,
        answered_at=kept.answered_at,
        decided_at=kept.decided_at,
        transfer_id=kept.transfer_id,
        answers=[
            NettingAnswerView(city_id=each.from_city, agreed=each.agreed, heard_at=each.heard_at)
            for each in answers
        ]
        if answers is not None
        else None,
        waiting_for=missing,
    )


async def view_with_answers(conn: Conn, kept: Kept) -> NettingView:
    netting = kept.netting
    answers = (
        await store.list_answers(conn, netting.city_id, netting.plan.netting_id)
        if netting.decides
        else None
    )
    return view_kept(kept, answers)


def is_federal(principal: Principal) -> bool:
    return principal.has("auditor", "federation_admin")


@router.get("/nettings/possible")
async def get_possible(
    principal: CurrentPrincipal,
    _: CurrentActor,
    pool: Database,
    cities: Annotated[list[Slug] | None, Query(max_length=CITIES_MAX)] = None,
) -> PlanView:
    """What could be netted now, besides what is proposed already; no moves where no debts go
    round. For federation admins and auditors; for stewards where their city takes part."""
    if not is_federal(principal) and not principal.has("steward"):
        raise forbidden()
    async with pool.acquire() as conn:
        view = view_moves(await service.find_moves(conn, cities))
    shown = is_federal(principal) or principal.city in view.cities
    return view if shown else view_moves(())


@router.post("/nettings", status_code=201)
async def propose(
    body: NettingBody,
    key: IdempotencyKey,
    principal: CurrentPrincipal,
    vault: TheVault,
    request: Request,
) -> NettingView:
    """Propose to all cities whose debts go round to owe each other less. For federation admins and
    auditors, and for stewards of the city that decides. Each city then agrees for itself, also the
    one that decides; it is posted everywhere when all have, and else nowhere."""
    actor = to_actor(principal)
    decider = body.city_id
    netting_id = body.netting_id or new_id()

    async def decide(conn: Conn, now: datetime) -> Kept | Rejected:
        if not is_federal(principal) and not (decider and actor.is_steward_of(decider)):
            if decider is None or actor.may_know_of(decider):
                return Rejected("forbidden", "This is for stewards of the city that decides.")
            return Rejected("not_found", "There is no such city.", field="body.city_id")
        return await service.propose(
            conn,
            vault,
            by=actor.id,
            netting_id=netting_id,
            decider=decider,
            among=body.cities,
            expires_at=body.expires_at or now + domain.AGREE_DEFAULT,
            now=now,
        )

    return await once(
        request,
        actor,
        key,
        body,
        signing(decide),
        lambda kept: view_kept(kept, []),
        as_=NettingView,
        status=201,
    )


@router.post("/nettings/{city_id}/{netting_id}/{answer}")
async def answer(
    city_id: Slug,
    netting_id: UUID,
    answer: Literal["agree", "refuse"],
    key: IdempotencyKey,
    actor: CurrentActor,
    vault: TheVault,
    request: Request,
) -> NettingView:
    """Agree to a netting, or refuse it. For stewards of `city_id`. Who has agreed is bound until it
    is decided; what is to be moved counts in the limits from then on."""

    async def decide(conn: Conn, now: datetime) -> NettingView | Rejected:
        kept = await service.answer(
            conn, vault, actor, city_id, netting_id, agrees=answer == "agree", now=now
        )
        return kept if isinstance(kept, Rejected) else await view_with_answers(conn, kept)

    return await once(
        request, actor, key, None, signing(decide), lambda view: view, as_=NettingView
    )


@router.get("/nettings")
async def list_nettings(
    principal: CurrentPrincipal,
    _: CurrentActor,
    pool: Database,
    city_id: Slug | None = None,
    state: State | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: UUID | None = None,
) -> NettingPage:
    """The nettings of a city, for its stewards; of all, for auditors and federation admins. The
    newest first."""
    wanted = city_id or (None if is_federal(principal) else principal.city)
    may_read(principal, wanted)
    async with pool.acquire() as conn:
        found = await store.list_kept(
            conn, city_id=wanted, state=state, before=cursor, limit=limit + 1
        )
        views = [await view_with_answers(conn, kept) for kept in found]
    return NettingPage.of(views, limit, lambda view: view, lambda view: view.netting_id)


@router.get("/nettings/{city_id}/{netting_id}")
async def get_netting(
    city_id: Slug,
    netting_id: UUID,
    principal: CurrentPrincipal,
    _: CurrentActor,
    pool: Database,
) -> NettingView:
    """A netting as a city keeps it. For its stewards, auditors and federation admins."""
    may_read(principal, city_id)
    async with pool.acquire() as conn:
        kept = await store.find(conn, city_id, netting_id)
        if kept is None:
            raise not_found("netting")
        return await view_with_answers(conn, kept)


def may_read(principal: Principal, city_id: str | None) -> None:
    """Raises Problem 403 in one's own city, else 404."""
    actor = to_actor(principal)
    if is_federal(principal) or (city_id is not None and actor.is_steward_of(city_id)):
        return
    raise forbidden() if city_id is None or actor.may_know_of(city_id) else not_found("city")
