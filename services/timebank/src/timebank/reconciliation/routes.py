"""Whether two cities tell one story, over HTTP."""

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from common.auth import CurrentPrincipal
from common.fields import Slug
from common.pages import Page
from common.web import StrictRoute
from timebank.clearing.messages import PairSaidBody
from timebank.netting.routes import is_federal, may_read
from timebank.reconciliation import service, store
from timebank.reconciliation.domain import AlarmKind, Direction, Open, Verdict
from timebank.reconciliation.store import Pair, Raised
from timebank.routes import PAGE_DEFAULT, CurrentActor, Database, Limit, TheClock

router = APIRouter(prefix="/v1", route_class=StrictRoute)

OPEN_SHOWN = 100


def the_overdue(request: Request) -> timedelta:
    overdue: timedelta = request.app.state.overdue
    return overdue


TheOverdue = Annotated[timedelta, Depends(the_overdue)]


class OpenView(BaseModel):
    """A posting that one of the two cities has and the other has not (yet). `posted_by`: which has.
    `id`: of the transfer between the cities, or of the netting. `verdict`: in_flight, late (in
    flight for too long), or why it cannot be in flight."""

    id: UUID
    kind: Literal["transfer", "netting", "other"]
    direction: Direction
    posted_by: str
    minutes: int
    since: datetime
    verdict: Verdict


class AlarmView(BaseModel):
    """What is wrong between two cities, of one kind, while it lasts. `ids`: the first 100 of
    `count` transfers and nettings."""

    alarm_id: UUID
    city_id: str
    peer_city_id: str
    kind: AlarmKind
    ids: list[UUID]
    count: int
    minutes: int
    raised_at: datetime
    closed_at: datetime | None


class PairView(BaseModel):
    """A pair of cities as `city_id` last compared it, in minutes. `position_minutes` and
    `peer_position_minutes` sum to `difference_minutes`, which is what is in flight and what nothing
    explains. `state`: agrees (0), in_flight, differs, unheard (the peer has not told all yet).
    `peer_log_size`: entries of the peer's log when it said so. `open`: the oldest 100."""

    city_id: str
    peer_city_id: str
    state: Literal["agrees", "in_flight", "differs", "unheard"]
    position_minutes: int
    peer_position_minutes: int | None
    difference_minutes: int | None
    in_flight_minutes: int | None
    unexplained_minutes: int | None
    checked_at: datetime
    peer_said_at: datetime | None
    peer_log_size: int | None
    open: list[OpenView]
    alarms: list[AlarmView]


class ReconciliationView(BaseModel):
    items: list[PairView]


class AlarmPage(Page[AlarmView]):
    pass


def view_alarm(raised: Raised) -> AlarmView:
    return AlarmView(
        alarm_id=raised.alarm_id,
        city_id=raised.city_id,
        peer_city_id=raised.peer_city_id,
        kind=raised.kind,
        ids=list(raised.ids),
        count=raised.count,
        minutes=raised.minutes,
        raised_at=raised.raised_at,
        closed_at=raised.closed_at,
    )


def view_open(pair: Pair, one: Open, verdict: Verdict) -> OpenView:
    return OpenView(
        id=one.id,
        kind="transfer" if one.direction in ("out", "in") else one.direction,
        direction=one.direction,
        posted_by=pair.city_id if one.side == "ours" else pair.peer_city_id,
        minutes=one.minutes,
        since=one.since,
        verdict=verdict,
    )


def view_pair(
    pair: Pair, verdicts: list[tuple[Open, Verdict]], flying: int, alarms: list[AlarmView]
) -> PairView:
    """`flying`: how many minutes are in flight."""
    said = PairSaidBody.model_validate(pair.said["body"]) if pair.said else None
    theirs = difference = in_flight = unexplained = None
    state: Literal["agrees", "in_flight", "differs", "unheard"] = "unheard"
    if said is not None and pair.complete:
        theirs = said.position_minutes
        difference = pair.story.our_minutes + theirs
        in_flight = flying
        unexplained = difference - in_flight
        wrong = unexplained or any(verdict not in service.FLYING for _, verdict in verdicts)
        state = "differs" if wrong else "in_flight" if verdicts or flying else "agrees"
    if pair.went_back:
        state = "differs"
    return PairView(
        city_id=pair.city_id,
        peer_city_id=pair.peer_city_id,
        state=state,
        position_minutes=pair.story.our_minutes,
        peer_position_minutes=theirs,
        difference_minutes=difference,
        in_flight_minutes=in_flight,
        unexplained_minutes=unexplained,
        checked_at=pair.checked_at,
        peer_said_at=pair.said_at,
        peer_log_size=said.log_size if said else None,
        open=[view_open(pair, *each) for each in verdicts[:OPEN_SHOWN]],
        alarms=alarms,
    )


@router.get("/reconciliation")
async def get_reconciliation(
    principal: CurrentPrincipal,
    _: CurrentActor,
    pool: Database,
    clock: TheClock,
    overdue: TheOverdue,
    city_id: Slug | None = None,
) -> ReconciliationView:
    """Each pair of cities, as the ones whose books are here last compared it: where both stand, by
    how much that differs, what is in flight and what nothing explains. Of a city for its stewards,
    of all for auditors and federation admins."""
    wanted = city_id or (None if is_federal(principal) else principal.city)
    may_read(principal, wanted)
    now = clock()
    async with pool.acquire() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        pairs = await store.list_pairs(conn, wanted)
        raised = await store.list_alarms(
            conn, city_id=wanted, open_only=True, before=None, limit=OPEN_SHOWN * 10
        )
        items = []
        for pair in pairs:
            verdicts = await service.verdicts_of(conn, pair, overdue=overdue, now=now)
            alarms = [
                view_alarm(each)
                for each in raised
                if (each.city_id, each.peer_city_id) == (pair.city_id, pair.peer_city_id)
            ]
            flying = await service.in_flight_of(conn, pair, verdicts)
            items.append(view_pair(pair, verdicts, flying, alarms))
    return ReconciliationView(items=items)


@router.get("/reconciliation/alarms")
async def list_alarms(
    principal: CurrentPrincipal,
    _: CurrentActor,
    pool: Database,
    city_id: Slug | None = None,
    open: bool = True,
    limit: Limit = PAGE_DEFAULT,
    cursor: UUID | None = None,
) -> AlarmPage:
    """What is wrong between cities, and with `open=false` also what was; the newest first. Of a
    city for its stewards, of all for auditors and federation admins."""
    wanted = city_id or (None if is_federal(principal) else principal.city)
    may_read(principal, wanted)
    async with pool.acquire() as conn:
        found = await store.list_alarms(
            conn, city_id=wanted, open_only=open, before=cursor, limit=limit + 1
        )
    return AlarmPage.of(found, limit, view_alarm, lambda raised: raised.alarm_id)
