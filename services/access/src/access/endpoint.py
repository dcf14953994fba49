"""POST /v1/taps as a bare ASGI application, in front of the framework.

A tap is answered in a fraction of the time that the framework's own machinery takes. It is the
same app all the same: `TapsFirst` is its outermost middleware, and routes.py documents the route.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import orjson
from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from access.credentials import CredentialReader
from access.metrics import REFUSED, TAP_SECONDS
from access.redis_pipe import RedisError, RedisPipe
from access.tap import answer_tap
from access.tap_request import read_tap
from common import telemetry
from common.clock import Clock
from common.db import SERVER_AWAY, Pool
from common.logging import get_logger
from common.problems import MEDIA_TYPE, Problem, unauthenticated, unavailable
from common.web import header

PATH = "/v1/taps"
BODY_BYTES_MAX = 16 * 1024
BODY_SECONDS_MAX = 5  # a reader that is slower has lost its network; nobody waits at a door so long
NOTHING = nullcontext()
# The same few readers send their key with every tap.
READERS_KEPT = 1024
AWAY: tuple[type[Exception], ...] = (*SERVER_AWAY, RedisError)
CREDENTIAL_HEADER = "Bearer <reader_id>.<secret>"
# No key of ours comes near this: `<UUID>.<secret>`.
CREDENTIAL = re.compile(rb"[Bb]earer ([0-9a-fA-F-]{36})\.([A-Za-z0-9_-]{16,200})")

log = get_logger(__name__)


class TapsFirst:
    """Answers POST /v1/taps itself; everything else goes on to the app."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        live_of: Callable[[Scope], tuple[RedisPipe, Pool]],
        reader: CredentialReader,
        clock: Clock,
        is_traced: bool,
    ) -> None:
        self.app = app
        self.live_of = live_of
        self.reader = reader
        self.clock = clock
        self.is_traced = is_traced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        try:
            with self._span(scope):
                body = await self._answer(scope, receive)
        except Problem as problem:
            await send_problem(problem, send)
        except AWAY as error:
            log.warning("tap_not_decided", error=f"{type(error).__name__}: {error}")
            await send_problem(unavailable(), send)
        except Exception as error:
            log.error("tap_failed", exc_info=error)
            await send_problem(Problem(500, "internal", "Something went wrong on our side."), send)
        else:
            await send_json(200, b"application/json", body, send)
            TAP_SECONDS.observe(time.perf_counter() - started)

    def _span(self, scope: Scope) -> AbstractContextManager[object]:
        if not self.is_traced:
            return NOTHING
        return telemetry.span(
            f"POST {PATH}", kind=SpanKind.SERVER, traceparent=header(scope, b"traceparent")
        )

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        reader_id, key_sha256 = read_headers(scope)
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                body = await read_body(receive)
        except TimeoutError:
            raise too_slow() from None
        now = self.clock()
        tap = read_tap(body, reader=self.reader, now=now)
        answer = await answer_tap(
            *self.live_of(scope), tap, reader_id=reader_id, key_sha256=key_sha256, now=now
        )
        return orjson.dumps(answer.body())


def read_headers(scope: Scope) -> tuple[str, str]:
    """The reader's id and the SHA-256 of its secret. Raises Problem 401, 413 or 415."""
    credential: tuple[str, str] | None = None
    content_type = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            if credential is not None:
                raise unauthenticated("Send one Authorization header.")
            credential = read_credential(value)
        elif name == b"content-type":
            content_type = value
        elif name == b"content-length" and value.isdigit() and int(value) > BODY_BYTES_MAX:
            raise too_large()
    if credential is None:
        raise unauthenticated(f"A reader's key is required: {CREDENTIAL_HEADER}.")
    if content_type.split(b";")[0].strip().lower() != b"application/json":
        raise Problem(
            415,
            "unsupported_media_type",
            "Send application/json.",
            field="header.content-type",
        )
    return credential


@lru_cache(maxsize=READERS_KEPT)
def read_credential(header: bytes) -> tuple[str, str]:
    """From `Bearer <reader_id>.<secret>`, the id and the SHA-256 of the secret in hexadecimal.

    Whether they belong together is asked at each tap. Raises Problem 401.
    """
    match = CREDENTIAL.fullmatch(header)
    if match is None:
        raise unauthenticated(f"A reader's key is required: {CREDENTIAL_HEADER}.")
    return match[1].decode().lower(), hashlib.sha256(match[2]).hexdigest()


async def read_body(receive: Receive) -> bytes:
    """The whole body. Raises Problem 413 beyond 16 KiB, 400 when the sender went away."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        if len(body) > BODY_BYTES_MAX:
            raise too_large()
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise Problem(400, "bad_request", "The request was cut off.")
    if len(body) > BODY_BYTES_MAX:
        raise too_large()
    return body


def too_slow() -> Problem:
    return Problem(
        408,
        "body_too_slow",
        f"A tap arrives within {BODY_SECONDS_MAX} seconds.",
        field="body",
        headers={"Connection": "close"},
    )


def too_large() -> Problem:
    return Problem(413, "too_large", "A tap is at most 16 KiB.", field="body")


async def send_problem(problem: Problem, send: Send) -> None:
    REFUSED.labels(problem.code).inc()
    extra = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send_json(
        problem.status, MEDIA_TYPE.encode(), orjson.dumps(problem.document()), send, extra
    )


async def send_json(
    status: int,
    media_type: bytes,
    body: bytes,
    send: Send,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:
    start: Message = {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(body)),
            (b"x-content-type-options", b"nosniff"),
            *(extra or ()),
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})
