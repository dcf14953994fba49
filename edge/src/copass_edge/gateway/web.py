"""HTTP for Fabman bridges and ACNodes: who asks, within which bounds, and the answer in its words.

One small ASGI application. Whatever is not a bridge's is answered as to an ACNode, because there a
friendly error page opens the door.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from copass_edge.gateway import acnode, fabman
from copass_edge.gateway.asking import Asker
from copass_edge.gateway.settings import AcNode, Fabman, Secret
from copass_edge.gateway.swipes import (
    MALFORMED,
    REFUSED,
    Point,
    Swipe,
    Verdict,
    tap_id_of,
    without_access,
)
from copass_tap.credentials import normalise_uid

BODY_BYTES_MAX = 4096
BODY_SECONDS_MAX = 5
BRIDGE = "/api/v1/bridge/"
# An ACNode tells of a door it opened a moment after it asked.
JUST_ASKED_S = 60

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bridge:
    config: Fabman
    point: Point


@dataclass(frozen=True, slots=True)
class Node:
    config: AcNode
    point: Point
    key: Secret


def make_app(asker: Asker, bridges: Mapping[bytes, Bridge], nodes: Mapping[int, Node]) -> ASGIApp:
    """`bridges` by the SHA-256 of their key, `nodes` by their number."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        path = scope["path"]
        if path == "/livez":
            response = Response(status_code=204)
        else:
            is_bridge = path.startswith(BRIDGE)
            try:
                if is_bridge:
                    response = await answer_bridge(asker, bridges, request, path)
                else:
                    response = await answer_node(asker, nodes, request, path)
            except ClientDisconnect:
                return
            except Exception as error:
                log.error("request_failed", exc_info=error)
                response = denied(500) if is_bridge else number(acnode.NO, request.headers)
        await response(scope, receive, send)

    return app


# --- Fabman --------------------------------------------------------------------------------------


async def answer_bridge(
    asker: Asker, bridges: Mapping[bytes, Bridge], request: Request, path: str
) -> Response:
    bridge = bridge_of(bridges, request.headers)
    if bridge is None:
        note_stranger(asker, "fabman")
        return denied(401)
    if request.method != "POST":
        return denied(405)
    body = await read_body(request)
    if body is None:
        return denied(413)
    name = bridge.point.name
    match path.removeprefix(BRIDGE).rstrip("/"):
        case "access":
            verdict = await ask_for_bridge(asker, bridge.point, fabman.read_keys(body))
            return JSONResponse(fabman.access_answer(verdict, bridge.config.kind))
        case "heartbeat" if fabman.read_object(body) is not None:
            log.debug("device_alive device=%s", name)
            return JSONResponse({"configVersion": 0})
        case "stop" if fabman.is_stop(body):
            log.info("use_stopped device=%s", name)
            return Response(status_code=204)
        case "heartbeat" | "stop":
            return denied(400)
    return denied(404)


async def ask_for_bridge(asker: Asker, point: Point, keys: list[str] | None) -> Verdict:
    """Two cards at once are nobody's."""
    if keys is None or len(keys) != 1:
        return asker.refuse(point, MALFORMED)
    return await asker.ask(point, keys[0])


def bridge_of(bridges: Mapping[bytes, Bridge], headers: Headers) -> Bridge | None:
    """The device whose key this is. Looked up by its hash, which tells nothing by its time."""
    sent = headers.getlist("authorization")
    if len(sent) != 1 or not sent[0].lower().startswith("bearer "):
        return None
    key = sent[0][len("bearer ") :].encode("utf-8", "surrogateescape")
    return bridges.get(hashlib.sha256(key).digest())


def denied(status: int) -> Response:
    return JSONResponse(fabman.access_answer(without_access("in", REFUSED), "door"), status)


# --- ACNode --------------------------------------------------------------------------------------


async def answer_node(
    asker: Asker, nodes: Mapping[int, Node], request: Request, path: str
) -> Response:
    question = acnode.read_path(request.method, path)
    node = nodes.get(question.node) if question is not None else None
    if question is None or node is None or not has_key(node, request.headers):
        note_stranger(asker, "acnode")
        return number(acnode.NO, request.headers)
    name = node.point.name
    match question.kind:
        case "card":
            verdict = await asker.ask(node.point, question.uid)
            return number(acnode.status_of(verdict), request.headers)
        case "status":
            return number(1, request.headers)
        case "use":
            log.info("use_reported device=%s value=%d", name, question.value)
            return number(1, request.headers)
        case "doorevent":
            await record_opened(asker, node.point, question)
            return number(1, request.headers)


async def record_opened(asker: Asker, point: Point, question: acnode.Question) -> None:
    """A door that the node opened for a card without asking, from its own memory, is a tap of the
    past. It was answered already if the node asked about the card just now."""
    uid = normalise_uid(question.uid)
    if not question.value or uid is None:
        return
    now = asker.clock()
    last = asker.swipes.last(point, uid)
    if last is not None and (now - last.occurred_at).total_seconds() < JUST_ASKED_S:
        return
    log.warning("opened_without_asking device=%s", point.name)
    tap_id = tap_id_of("acnode", point.name, uid, now.isoformat())
    await asker.send(Swipe(point, uid, tap_id, now, mode="replay"))


def has_key(node: Node, headers: Headers) -> bool:
    sent = headers.getlist("x-ac-key")
    return len(sent) == 1 and node.key.is_same(sent[0])


def number(value: int, headers: Headers) -> Response:
    body, media_type = acnode.answer(value, in_json="x-ac-json" in headers)
    return Response(body, 200, media_type=media_type)


def note_stranger(asker: Asker, dialect: str) -> None:
    """Someone without a key is worth a line, not a thousand."""
    if asker.rate.allows(f"stranger.{dialect}", asker.monotonic()):
        log.warning("device_refused dialect=%s", dialect)


async def read_body(request: Request) -> bytes | None:
    """The body; None when it is too large or too slow."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:10]) > BODY_BYTES_MAX:
        return None
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    return None
    except TimeoutError:
        return None
    return body
