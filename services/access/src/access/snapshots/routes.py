"""What readers ask besides taps, and what operators are told of messages used twice."""

import asyncio
import gzip
import hashlib
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field

from access.credentials import CredentialReader
from access.endpoint import CREDENTIAL, CREDENTIAL_HEADER
from access.routes import Ntag424Credential
from access.settings import Settings
from access.snapshots import conflicts, service, signing, store
from access.snapshots.domain import Terms, Version, read_etag
from access.snapshots.service import Desk
from common.auth import CurrentPrincipal
from common.db import Pool
from common.fields import Body
from common.problems import FieldError, forbidden, not_found, unauthenticated
from common.web import StrictRoute
from copass_tap.ntag424 import KeySet

STORED_MAX = 500
PAGE_MAX = 200
PAPER = "application/vnd.copass.signed"
GZIP_FROM_BYTES = 1024
HOUSEHOLD = ("resident", "staff", "warden")

router = APIRouter(prefix="/v1", route_class=StrictRoute)


class ReaderDoor(BaseModel):
    door_id: UUID
    place_id: UUID
    kind: str


class ReaderAnswer(BaseModel):
    """What a reader is told when it is paired. `snapshot_key`: Ed25519, 64 hexadecimal digits."""

    reader_id: UUID
    city_id: str
    doors: list[ReaderDoor]
    snapshot_key: str
    now: datetime


class StoredBody(Body):
    decision_ids: Annotated[list[UUID], Field(min_length=1, max_length=STORED_MAX)]


class StoredAnswer(BaseModel):
    """Those of the decisions that are in the history: the reader may forget these taps."""

    stored: list[UUID]


class CardKeyAnswer(BaseModel):
    """`credential_hash` names the card. `sealed`: base64 of its key, for this reader alone."""

    credential_hash: str
    sealed: str


class ConflictItem(BaseModel):
    """One message of a card at two taps of doors that could not know of each other."""

    conflict_id: UUID
    counter: int
    first_door_id: UUID
    first_reader_id: UUID
    first_tap_id: UUID
    first_occurred_at: datetime
    second_door_id: UUID
    second_reader_id: UUID
    second_tap_id: UUID
    second_occurred_at: datetime
    found_at: datetime


class ConflictPage(BaseModel):
    items: list[ConflictItem]
    next: UUID | None


class ReaderKey:
    """What a reader showed: its id, its secret, and the secret's SHA-256 in hexadecimal."""

    def __init__(
        self,
        request: Request,
        _described: Annotated[
            object,
            Security(
                HTTPBearer(
                    scheme_name="reader_key",
                    bearerFormat="<reader_id>.<secret>",
                    auto_error=False,
                )
            ),
        ],
    ) -> None:
        """Raises Problem 401."""
        headers = request.headers.getlist("authorization")
        match = CREDENTIAL.fullmatch(headers[0].encode("latin-1")) if len(headers) == 1 else None
        try:
            if match is None:
                raise ValueError("no reader's key")
            self.reader_id = UUID(match[1].decode())
        except ValueError:
            raise unauthenticated(f"A reader's key is required: {CREDENTIAL_HEADER}.") from None
        self.secret = match[2].decode()
        self.sha256 = hashlib.sha256(match[2]).hexdigest()


class Office:
    """What the routes need of the app."""

    def __init__(self, request: Request) -> None:
        state = request.app.state
        self.pool: Pool = state.pool
        self.clock = state.clock
        self.settings: Settings = state.settings
        self.credentials: CredentialReader = state.credentials
        self.desk: Desk = state.desk
        self.card_keys: tuple[KeySet, ...] = state.card_keys
        self._signer: signing.Signer | None = state.signer

    @property
    def signer(self) -> signing.Signer:
        return signing.need_signer(self._signer)

    @property
    def terms(self) -> Terms:
        return Terms(
            visitors_s=self.settings.snapshot_hours * 3600,
            household_s=self.settings.snapshot_household_hours * 3600,
            cards_max=self.settings.snapshot_cards_max,
        )


CurrentReader = Annotated[ReaderKey, Depends()]
CurrentOffice = Annotated[Office, Depends()]
SIGNED: dict[int | str, dict[str, Any]] = {
    200: {"description": "A signed paper (docs/offline.md)", "content": {PAPER: {}}},
    304: {"description": "The one that you have stays good"},
}


@router.get("/readers/self", summary="Which doors this reader stands at, and whom it is to trust")
async def get_self(reader: CurrentReader, office: CurrentOffice) -> ReaderAnswer:
    """For a reader that is being installed: its doors, and the key that signs what it is given."""
    async with office.pool.acquire() as conn:
        found = await service.check_reader(conn, reader.reader_id, reader.sha256)
        doors = await store.doors_of(conn, reader.reader_id)
    return ReaderAnswer(
        reader_id=reader.reader_id,
        city_id=found.city_id,
        doors=[
            ReaderDoor(
                door_id=UUID(door.door_id), place_id=UUID(door.place_id), kind=door.policy["kind"]
            )
            for door in doors
            if door.city_id == found.city_id
        ],
        snapshot_key=office.signer.public_key,
        now=office.clock(),
    )


@router.get("/doors/{door_id}/snapshot", responses=SIGNED, response_class=Response)
async def get_snapshot(
    door_id: UUID,
    reader: CurrentReader,
    office: CurrentOffice,
    if_none_match: Annotated[str | None, Header(max_length=100)] = None,
    accept_encoding: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """All that a reader needs to decide alone for some hours, signed for it. Ask with the ETag of
    the one that you have, and not before `max-age` is over: what lets fewer people in is told at
    once by the changes."""
    sealed = ""
    if office.settings.offline_secrets:
        content = signing.offline_secrets(
            office.settings.card_pepper.get_secret_value(), office.card_keys
        )
        sealed = signing.seal_for_reader(reader.secret, content, signing.OFFLINE_SECRETS)
    made = await service.make_snapshot(
        office.pool,
        office.desk,
        reader_id=reader.reader_id,
        key_sha256=reader.sha256,
        door_id=door_id,
        known=read_etag(if_none_match),
        terms=office.terms,
        sealed=sealed,
        now=office.clock(),
    )
    if isinstance(made, Version):
        return Response(status_code=304, headers=snapshot_headers(made))
    # Away from the loop: signing and packing a large one takes longer than many taps.
    paper = await asyncio.to_thread(service.sign_snapshot, made, office.signer.sign)
    headers = snapshot_headers(made.version)
    if len(paper) >= GZIP_FROM_BYTES and "gzip" in (accept_encoding or ""):
        paper = await asyncio.to_thread(gzip.compress, paper, 1)
        headers["content-encoding"] = "gzip"
    return Response(paper, headers=headers, media_type=PAPER)


def snapshot_headers(version: Version) -> dict[str, str]:
    return {
        "etag": version.etag(),
        "cache-control": f"private, max-age={version.pause_s}",
        "vary": "Authorization, Accept-Encoding",
    }


@router.get("/doors/{door_id}/changes", responses={200: SIGNED[200]}, response_class=Response)
async def get_changes(
    door_id: UUID,
    request: Request,
    reader: CurrentReader,
    office: CurrentOffice,
    after: Annotated[int, Query(ge=0, le=2**53 - 1, description="`sequence` of what you have")],
    wait_s: Annotated[int, Query(ge=0, le=service.WAIT_S_MAX)] = 15,
) -> Response:
    """Who may do less at this door since then, a lockdown, a new policy: at once, or after
    `wait_s` that there is nothing. Cards blocked, members suspended or lapsed, people who moved
    out; who may do more is in the next snapshot."""
    paper = await service.wait_for_changes(
        office.pool,
        office.desk,
        reader_id=reader.reader_id,
        key_sha256=reader.sha256,
        door_id=door_id,
        after=after,
        wait_s=wait_s,
        sign=office.signer.sign,
        clock=office.clock,
        is_gone=request.is_disconnected,
    )
    return Response(paper, media_type=PAPER, headers={"cache-control": "no-store"})


@router.post("/doors/{door_id}/card-keys", summary="The key of a card, to check it alone")
async def post_card_key(
    door_id: UUID, body: Ntag424Credential, reader: CurrentReader, office: CurrentOffice
) -> CardKeyAnswer:
    """For a card that was just held to this door: the key that its messages are checked with, and
    nothing else opens. By default for residents and staff of the place alone
    (`ACCESS_OFFLINE_CARD_KEYS`); 404 for all others. Never a key from which others follow."""
    errors: list[FieldError] = []
    credential = office.credentials.read(body.model_dump(), "body", errors)
    async with office.pool.acquire() as conn:
        found = await service.check_reader(conn, reader.reader_id, reader.sha256)
        door = await service.check_door(conn, found, door_id)
        known = (
            await store.card_relation(conn, credential.hash, door.place_id) if credential else None
        )
    key = signing.file_key(office.card_keys, body.picc_data, body.mac)
    rule = office.settings.offline_card_keys
    status, relation = known or ("", None)
    allowed = rule == "all" or (rule == "household" and relation in HOUSEHOLD)
    if credential is None or key is None or status != "active" or not allowed:
        raise not_found("card")
    sealed = signing.seal_for_reader(reader.secret, key, signing.CARD_KEY)
    return CardKeyAnswer(credential_hash=credential.hash, sealed=sealed)


@router.post("/taps/stored", summary="Which of these decisions are in the history?")
async def post_stored(
    body: StoredBody, reader: CurrentReader, office: CurrentOffice
) -> StoredAnswer:
    """An answered tap is recorded; one that is also here survives the loss of everything else. A
    reader keeps a tap until then, and sends it again when it does not come."""
    async with office.pool.acquire() as conn:
        await service.check_reader(conn, reader.reader_id, reader.sha256)
        stored = await store.stored_decisions(conn, reader.reader_id, body.decision_ids)
    return StoredAnswer(stored=[one for one in body.decision_ids if one in stored])


@router.get("/tap-conflicts", summary="Messages of cards that two doors opened to")
async def get_conflicts(
    request: Request,
    principal: CurrentPrincipal,
    cursor: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
) -> ConflictPage:
    """For the operators and stewards of a city that one of the readers is of; the last found
    first. A card is copied, or somebody carried its message from one door to another."""
    if not principal.city or not principal.has("operator", "steward"):
        raise forbidden()
    pool: Pool = request.app.state.pool
    async with pool.acquire() as conn:
        found = await conflicts.list_conflicts(conn, principal.city, before=cursor, limit=limit + 1)
    items = [ConflictItem.model_validate(asdict(one)) for one in found[:limit]]
    return ConflictPage(items=items, next=items[-1].conflict_id if len(found) > limit else None)
