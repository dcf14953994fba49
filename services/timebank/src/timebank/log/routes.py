"""The log over HTTP: checkpoints and proofs for anybody with a token, entries for those who answer
for the book. Nothing here changes a thing, and what is asked of a given size never changes."""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import AwareDatetime, BaseModel

from common.auth import CurrentPrincipal, current_principal
from common.db import Conn
from common.fields import Slug
from common.problems import forbidden, invalid, not_found, unavailable
from common.streaming import HoldingResponse
from common.web import StrictRoute
from copass_verify.merkle import HASH_BYTES, SIZE_MAX
from timebank import store as ledger_store
from timebank.log import bundle, service, store
from timebank.routes import CurrentActor, Database, TheClock

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class TaggedRoute(StrictRoute):
    """Every answer has an ETag; who has it already is told so, and nothing else."""

    def get_route_handler(self) -> Handler:
        answer = super().get_route_handler()

        async def tagged(request: Request) -> Response:
            response = await answer(request)
            if response.status_code != 200 or isinstance(response, StreamingResponse):
                return response
            tag = f'"{sha256(response.body).hexdigest()[:32]}"'
            response.headers["ETag"] = tag
            known = request.headers.get("if-none-match", "")
            if tag in (each.strip().removeprefix("W/") for each in known.split(",")):
                kept = ("cache-control", "etag")
                headers = {
                    name: response.headers[name] for name in kept if name in response.headers
                }
                return Response(status_code=304, headers=headers)
            return response

        return tagged


router = APIRouter(prefix="/v1/log", route_class=TaggedRoute)

ENTRIES_MAX = 1000
TILE_WIDTH = 256
TILE_LEVEL_MAX = 7
CITIES_MAX = 100
BUNDLE_S = 900
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
FOR_SECONDS = {"Cache-Control": "public, max-age=2"}
FOR_THEM_ONLY = {"Cache-Control": "private, max-age=31536000, immutable"}

Size = Annotated[int, Query(ge=1, le=SIZE_MAX)]
Index = Annotated[int, Query(ge=0, lt=SIZE_MAX)]


class InclusionView(BaseModel):
    """That the entry with this hash is number `index` of the log of `size` entries; hashes in
    base64 (RFC 9162, 2.1.3)."""

    index: int
    size: int
    leaf_hash: str
    proof: list[str]


class ConsistencyView(BaseModel):
    """That the log of `to` entries begins with that of `from`; hashes in base64 (RFC 9162,
    2.1.4)."""

    first: int
    second: int
    proof: list[str]


class CheckpointListView(BaseModel):
    """Signed notes, the smallest size first. `next`: ask again with it as `after`."""

    items: list[str]
    next: int | None


def encoded(hashes: list[bytes]) -> list[str]:
    return [base64.b64encode(item).decode() for item in hashes]


async def last_size(conn: Conn, city_id: str) -> int:
    """The size of the newest checkpoint; what is in no checkpoint cannot be proven yet."""
    last = await store.last_checkpoint(conn, city_id)
    if last is None:
        raise not_found("checkpoint")
    return last.size


async def size_within(conn: Conn, city_id: str, size: int | None, field: str) -> int:
    newest = await last_size(conn, city_id)
    if size is not None and size > newest:
        raise invalid(f"query.{field}", f"{newest} entries are signed so far.")
    return newest if size is None else size


@router.get(
    "/bundle",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}}}},
)
async def evidence(
    request: Request,
    actor: CurrentActor,
    principal: CurrentPrincipal,
    clock: TheClock,
    city: Annotated[list[Slug] | None, Query(max_length=CITIES_MAX)] = None,
    peer: Annotated[Slug | None, Query(alias="with")] = None,
    begin: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    end: Annotated[AwareDatetime | None, Query(alias="until")] = None,
) -> Response:
    """An evidence bundle for `copass-verify`: the whole books of these cities, or of all; with
    `with`, `from` or `until` an excerpt. For stewards of the cities that they name, auditors and
    federation admins. Two at a time, a quarter of an hour each at most."""
    if not (actor.auditor or principal.has("federation_admin")):
        for city_id in city or ():
            if not actor.is_steward_of(city_id):
                raise forbidden() if actor.may_know_of(city_id) else not_found("city")
        if not city:
            raise forbidden()
    if begin and end and end <= begin:
        raise invalid("query.until", "It is after `from`.")
    bundles: bundle.Bundles = request.app.state.bundles
    if bundles.at_once.locked():
        raise unavailable("Two bundles are being written. Try again later.")
    wanted = bundle.Wanted(tuple(city or ()), peer, begin, end)
    pieces = write_pieces(bundles, wanted, clock())
    try:
        first = await anext(pieces)
    except LookupError as error:
        raise not_found("checkpoint") from error

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    name = "-".join(city) if city and len(city) < 3 else "federation"
    return HoldingResponse(
        all_pieces(),
        let_go=pieces.aclose,
        seconds_max=BUNDLE_S,
        media_type="application/zip",
        headers={
            "Content-Disposition": f'attachment; filename="{name}.zip"',
            "Cache-Control": "private, no-store",
        },
    )


async def write_pieces(
    bundles: bundle.Bundles, wanted: bundle.Wanted, now: datetime
) -> AsyncGenerator[bytes, None]:
    """The file in pieces. Raises LookupError before the first."""
    async with bundles.at_once, bundle.open_bundle(bundles.dsn, wanted, now) as writer:
        # Whoever reads too slowly keeps no snapshot of the database for ever.
        stop = asyncio.get_running_loop().call_later(BUNDLE_S, writer.conn.terminate)
        try:
            async for piece in writer.pieces():
                yield piece
        finally:
            stop.cancel()


@router.get(
    "/{city_id}/checkpoint",
    response_class=PlainTextResponse,
    dependencies=[Depends(current_principal)],
)
async def checkpoint(city_id: Slug, pool: Database) -> Response:
    """The newest checkpoint: a signed note (C2SP tlog-checkpoint)."""
    async with pool.acquire() as conn:
        signed = await store.last_checkpoint(conn, city_id)
    if signed is None:
        raise not_found("checkpoint")
    return PlainTextResponse(signed.note, headers=FOR_SECONDS)


@router.get("/{city_id}/checkpoints", dependencies=[Depends(current_principal)])
async def checkpoints(
    city_id: Slug, pool: Database, after: Annotated[int, Query(ge=0, le=SIZE_MAX)] = 0
) -> CheckpointListView:
    """All checkpoints that were ever signed, a hundred at a time."""
    async with pool.acquire() as conn:
        if not await ledger_store.has_book(conn, city_id):
            raise not_found("city")
        found = await store.list_checkpoints(conn, city_id, after, 101)
    return CheckpointListView(
        items=[each.note for each in found[:100]],
        next=found[99].size if len(found) > 100 else None,
    )


@router.get("/{city_id}/inclusion", dependencies=[Depends(current_principal)])
async def inclusion(
    city_id: Slug,
    pool: Database,
    response: Response,
    index: Index | None = None,
    transfer_id: UUID | None = None,
    size: Size | None = None,
) -> InclusionView:
    """Proves that an entry is in the log: the one of this number, or of this transfer. `size` is
    that of the newest checkpoint if left out."""
    if (index is None) == (transfer_id is None):
        raise invalid("query.index", "Name either an index or a transfer_id.")
    async with pool.acquire() as conn:
        whole = await size_within(conn, city_id, size, "size")
        place = index
        if transfer_id is not None:
            place = await store.find_index(conn, city_id, transfer_id)
        if place is None or place >= whole:
            raise not_found("entry")
        leaf = await store.leaf_hashes(conn, city_id, [(place, place + 1)])
        proof = await service.inclusion(conn, city_id, place, whole)
    response.headers.update(FOR_SECONDS if size is None else FOR_EVER)
    return InclusionView(
        index=place,
        size=whole,
        leaf_hash=base64.b64encode(leaf[place]).decode(),
        proof=encoded(proof),
    )


@router.get("/{city_id}/consistency", dependencies=[Depends(current_principal)])
async def consistency(
    city_id: Slug,
    pool: Database,
    response: Response,
    first: Annotated[int, Query(ge=1, le=SIZE_MAX, alias="from")],
    second: Annotated[int | None, Query(ge=1, le=SIZE_MAX, alias="to")] = None,
) -> ConsistencyView:
    """Proves that the log only grew between two sizes. `to` is that of the newest checkpoint if
    left out."""
    async with pool.acquire() as conn:
        whole = await size_within(conn, city_id, second, "to")
        if first > whole:
            raise invalid("query.from", f"It is after `to`, which is {whole}.")
        proof = await service.consistency(conn, city_id, first, whole)
    response.headers.update(FOR_SECONDS if second is None else FOR_EVER)
    return ConsistencyView(first=first, second=whole, proof=encoded(proof))


@router.get("/{city_id}/entries", response_class=PlainTextResponse)
async def entries(
    city_id: Slug,
    actor: CurrentActor,
    principal: CurrentPrincipal,
    pool: Database,
    begin: Annotated[int, Query(ge=0, lt=SIZE_MAX, alias="from")],
    end: Annotated[int, Query(ge=1, le=SIZE_MAX, alias="to")],
) -> Response:
    """Entries `from` to `to` - 1, at most 1000, one canonical JSON per line: fewer when the signed
    log ends before. For the city's stewards, auditors and federation admins: who knows one
    transfer of an account could follow the account through the others."""
    federal = actor.auditor or principal.has("federation_admin")
    if not federal and not actor.is_steward_of(city_id):
        raise forbidden() if actor.may_know_of(city_id) else not_found("city")
    if not begin < end <= begin + ENTRIES_MAX:
        raise invalid("query.to", f"It is 1 to {ENTRIES_MAX} after `from`.")
    async with pool.acquire() as conn:
        whole = await last_size(conn, city_id)
        found = await store.list_entries(conn, city_id, begin, min(end, whole))
    return Response(
        b"".join(each.entry + b"\n" for each in found),
        media_type="application/jsonl",
        headers=FOR_THEM_ONLY if end <= whole else {"Cache-Control": "private, max-age=2"},
    )


@router.get(
    "/{city_id}/tile/{level}/{number}",
    response_class=Response,
    dependencies=[Depends(current_principal)],
)
async def tile(city_id: Slug, level: int, number: int, pool: Database) -> Response:
    """A full tile (C2SP tlog-tiles): 256 hashes of level 8 × `level`, from 256 × `number` on."""
    if not 0 <= level <= TILE_LEVEL_MAX or not 0 <= number < SIZE_MAX >> (8 * (level + 1)):
        raise not_found("tile")
    begin = number * TILE_WIDTH
    wanted = [(8 * level, index) for index in range(begin, begin + TILE_WIDTH)]
    async with pool.acquire() as conn:
        if (begin + TILE_WIDTH) << (8 * level) > await last_size(conn, city_id):
            raise not_found("tile")
        nodes = await service.nodes_of(conn, city_id, wanted)
    content = b"".join(nodes[each] for each in wanted)
    assert len(content) == TILE_WIDTH * HASH_BYTES
    return Response(content, media_type="application/octet-stream", headers=FOR_EVER)
