"""The HTTP routes. POST /v1/taps is documented here and answered in endpoint.py, ahead of these."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.security import HTTPBearer
from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from access import live_store, service, store
from access.endpoint import CREDENTIAL_HEADER, read_credential
from access.metrics import REFUSED
from access.redis_pipe import RedisPipe
from access.tap import answer_tap
from access.tap_request import check_tap
from common.auth import CurrentPrincipal
from common.fields import Body, ShortText
from common.idempotency import IdempotencyKey
from common.problems import Problem, unauthenticated
from common.web import StrictRoute
from copass_tap.decision import Reason

BATCH_MAX = 500
PAGE_MAX = 200

router = APIRouter(prefix="/v1", route_class=StrictRoute)


class UidCredential(Body):
    type: Literal["uid"]
    uid: Annotated[
        str,
        StringConstraints(pattern=r"^[0-9A-Fa-f]{2}([:\- ]?[0-9A-Fa-f]{2}){3,9}$"),
        Field(
            description="The card's own UID: 4, 7 or 10 bytes, hexadecimal.",
            examples=["04A2B1C3D4E5F6"],
        ),
    ]


class Ntag424Credential(Body):
    """What an NTAG 424 DNA card wrote behind its link: `?e=<picc_data>&c=<mac>`."""

    type: Literal["ntag424"]
    picc_data: Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{32}$")]
    mac: Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{16}$")]


class PassCredential(Body):
    """What the QR on a member's phone says: another every 30 seconds, good once at each door."""

    type: Literal["pass"]
    code: Annotated[str, StringConstraints(pattern=r"^[Cc][Pp]1\.[A-Za-z2-7]{135}$")]


class GuestCredential(Body):
    """What the QR of a guest pass says."""

    type: Literal["guest"]
    code: Annotated[str, StringConstraints(pattern=r"^[Cc][Gg]1\.[A-Za-z2-7]{26}$")]


Credential = Annotated[
    UidCredential | Ntag424Credential | PassCredential | GuestCredential,
    Field(discriminator="type"),
]


class TapBody(Body):
    """A credential held to a reader. The reader makes the tap_id; trying again, it keeps it."""

    tap_id: UUID
    door_id: UUID
    credential: Credential
    direction: Literal["in", "out"]
    occurred_at: Annotated[
        AwareDatetime,
        Field(
            description="At most 2 minutes ahead; 10 minutes old when live, 30 days when replayed."
        ),
    ]
    mode: Literal["live", "replay"]


class MessageBody(BaseModel):
    fr: str
    en: str


class AnswerBody(BaseModel):
    """The decision. `unlock_ms` is 0 unless the door is to be opened now, before `expires_at`."""

    decision: Literal["grant", "deny"]
    reason: Reason
    unlock_ms: int
    message: MessageBody
    decision_id: UUID
    expires_at: datetime
    policy_version: int


class BatchBody(Body):
    """A reader's log of what happened while it was alone, oldest first. Each tap is a TapBody with
    mode replay; one that is not gets a problem of its own, and the others their answers."""

    taps: Annotated[list[Any], Field(min_length=1, max_length=BATCH_MAX)]


class BatchItem(BaseModel):
    """The answer to one tap of a batch: an answer or a problem."""

    tap_id: str | None
    answer: AnswerBody | None
    problem: dict[str, Any] | None


class BatchAnswer(BaseModel):
    answers: Annotated[list[BatchItem], Field(description="One for each tap, in the same order.")]


class TapItem(BaseModel):
    decision_id: UUID
    tap_id: UUID
    door_id: UUID
    place_id: UUID
    city_id: str
    reader_id: UUID
    card_id: UUID | None
    member_id: UUID | None
    direction: Literal["in", "out"]
    mode: Literal["live", "replay"]
    decision: Literal["grant", "deny"]
    reason: str
    occurred_at: datetime
    decided_at: datetime
    policy_version: int
    zone: Annotated[str | None, Field(description="Where in the place it led.")]
    flags: Annotated[list[str], Field(description="passback: let in all the same; in_charge.")]


class TapPage(BaseModel):
    items: list[TapItem]
    next: UUID | None


class PresenceAnswer(BaseModel):
    """How many members are inside: a number, never names. `capacity` null: no limit."""

    inside: int
    capacity: int | None


class LockdownBody(Body):
    active: Annotated[bool, Field(strict=True)]
    reason: ShortText


class LockdownAnswer(BaseModel):
    place_id: UUID
    active: bool
    reason: str
    version: int
    changed_at: datetime


def pipe_of(request: Request) -> RedisPipe:
    pipe: RedisPipe = request.app.state.pipe
    return pipe


# For the API description; what it would find in the header is read by `read_credential`.
READER_KEY = HTTPBearer(
    scheme_name="reader_key", bearerFormat="<reader_id>.<secret>", auto_error=False
)


def reader_credential(
    request: Request, _described: Annotated[object, Security(READER_KEY)]
) -> tuple[str, str]:
    """The reader's id and secret. Raises Problem 401."""
    headers = request.headers.getlist("authorization")
    if len(headers) != 1:
        raise unauthenticated(f"A reader's key is required: {CREDENTIAL_HEADER}.")
    return read_credential(headers[0].encode("latin-1", "replace"))


ReaderCredential = Annotated[tuple[str, str], Depends(reader_credential)]
Pipe = Annotated[RedisPipe, Depends(pipe_of)]


@router.post("/taps", summary="Tap: may this credential pass this door now?")
async def post_tap(_tap: TapBody, _credential: ReaderCredential) -> AnswerBody:
    """Answered once per tap_id, recorded before it is answered. `endpoint.TapsFirst` answers; this
    states the shapes for the API description."""
    raise RuntimeError("endpoint.TapsFirst is not in front of the app")


@router.post("/taps/batch", summary="Replay what a reader decided alone")
async def post_taps(
    body: BatchBody, credential: ReaderCredential, request: Request, pipe: Pipe
) -> BatchAnswer:
    """Each tap gets its own answer, in order. Nobody is moved in or out by a replayed tap, and
    sending the same batch again changes nothing."""
    reader_id, key_sha256 = credential
    answers = [
        await answer_one(pipe, request, index, fields, reader_id, key_sha256)
        for index, fields in enumerate(body.taps)
    ]
    return BatchAnswer(answers=answers)


async def answer_one(
    pipe: RedisPipe,
    request: Request,
    index: int,
    fields: Any,
    reader_id: str,
    key_sha256: str,
) -> BatchItem:
    """The answer to one tap of a batch. Raises Problem for what concerns them all: 401, 503."""
    tap_id = fields.get("tap_id") if isinstance(fields, dict) else None
    shown_id = tap_id if isinstance(tap_id, str) else None
    now = request.app.state.clock()
    where = f"body.taps.{index}"
    try:
        tap = check_tap(fields, reader=request.app.state.credentials, now=now, where=where)
        if tap.mode != "replay":
            raise Problem(422, "invalid", "A batch takes mode replay only.", field=f"{where}.mode")
        answer = await answer_tap(
            pipe,
            request.app.state.pool,
            tap,
            reader_id=reader_id,
            key_sha256=key_sha256,
            now=now,
        )
    except Problem as problem:
        if problem.status in (401, 503):
            raise
        REFUSED.labels(problem.code).inc()
        return BatchItem(tap_id=shown_id, answer=None, problem=problem.document())
    return BatchItem(
        tap_id=tap.tap_id, answer=AnswerBody.model_validate(answer.body()), problem=None
    )


@router.get("/taps", summary="The history of taps, newest first")
async def get_taps(
    request: Request,
    principal: CurrentPrincipal,
    place_id: UUID | None = None,
    member_id: UUID | None = None,
    door_id: UUID | None = None,
    reader_id: UUID | None = None,
    decision: Literal["grant", "deny"] | None = None,
    reason: Reason | None = None,
    since: Annotated[AwareDatetime | None, Query(description="Decided then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Decided before then.")] = None,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
) -> TapPage:
    """Stewards and operators see their city's places, which is noted; everybody their own taps."""
    rows = await service.list_taps(
        request.app.state.pool,
        principal,
        place_id=place_id,
        member_id=member_id,
        since=since,
        before=cursor,
        limit=limit + 1,
        now=request.app.state.clock(),
        until=until,
        door_id=door_id,
        reader_id=reader_id,
        decision=decision,
        reason=reason,
    )
    return page_of(rows, limit)


def page_of(rows: Sequence[store.TapRow], limit: int) -> TapPage:
    items = [TapItem.model_validate(store.tap_item(row)) for row in rows[:limit]]
    return TapPage(items=items, next=items[-1].decision_id if len(rows) > limit else None)


@router.get("/places/{place_id}/presence", summary="How many are inside")
async def get_presence(
    place_id: UUID, request: Request, principal: CurrentPrincipal, pipe: Pipe
) -> PresenceAnswer:
    """A number, never names. For the operators and stewards of the place's city."""
    place = await service.place_of(pipe, principal, place_id, federation=False)
    inside = await live_store.count_inside(pipe, place.place_id, request.app.state.clock())
    return PresenceAnswer(inside=inside, capacity=place.capacity)


@router.put("/places/{place_id}/lockdown", summary="Close a place for safety, or lift that")
async def put_lockdown(
    place_id: UUID,
    body: LockdownBody,
    request: Request,
    principal: CurrentPrincipal,
    key: IdempotencyKey,
    pipe: Pipe,
) -> LockdownAnswer:
    """Keeps visitors out at once, after a flush of Redis too. Exits stay open; residents and the
    place's own staff still get in."""
    place = await service.place_of(pipe, principal, place_id, federation=True)
    answer = await service.set_lockdown(
        request.app.state.pool,
        pipe,
        principal,
        place,
        active=body.active,
        reason=body.reason,
        key=key,
        now=request.app.state.clock(),
    )
    return LockdownAnswer.model_validate(answer.body)
