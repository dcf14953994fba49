"""The HTTP edge that every service has: problems, health, metrics, one log line per request."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import wraps
from types import MappingProxyType
from typing import ParamSpec, TypeVar

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from opentelemetry.trace import SpanKind
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common import problems, telemetry
from common.ids import new_id
from common.logging import get_logger
from common.metrics import HTTP_REQUESTS, HTTP_SECONDS
from common.problems import Problem
from common.strict import StrictRoute as StrictRoute

BODY_BYTES_MAX = 1024 * 1024
BODY_SECONDS_MAX = 20

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Ready = Callable[[FastAPI], Awaitable[list[str]]]
Direct = Callable[[Request], Awaitable[Response]]
NOTHING_DIRECT: Mapping[tuple[str, str], Direct] = MappingProxyType({})
QUIET = {"/livez", "/readyz", "/metrics"}

P = ParamSpec("P")
R = TypeVar("R")

log = get_logger(__name__)


def create_app(
    *,
    title: str,
    version: str,
    routers: Sequence[APIRouter],
    lifespan: Lifespan,
    ready: Ready,
    description: str = "",
    direct: Mapping[tuple[str, str], Direct] = NOTHING_DIRECT,
) -> FastAPI:
    """An app with the routers given and the edge around them.

    `ready` names what is not ready; an empty list means ready. `direct`, by method and path, are
    requests answered in front of the framework, which takes longer than a short piece of work; the
    routers describe them all the same.
    """
    app = FastAPI(
        title=title,
        version=version,
        description=description,
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        strict_content_type=True,
        redirect_slashes=False,  # an address is right or absent: no body is sent twice
        responses={
            "4XX": {"description": "A problem (RFC 9457)", "content": {problems.MEDIA_TYPE: {}}},
            "503": {"description": "Not now", "content": {problems.MEDIA_TYPE: {}}},
        },
    )
    problems.install(app)
    for router in routers:
        app.include_router(router)
    app.include_router(health_router(lambda: ready(app)))
    app.add_middleware(Edge, direct=direct)
    return app


def health_router(ready: Callable[[], Awaitable[list[str]]]) -> APIRouter:
    """`/livez` (the process answers), `/readyz` (it can do its work), `/metrics`. For anybody who
    reaches the port: a proxy in front does not publish them."""
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz() -> Response:
        try:
            missing = await ready()
        except Exception as error:
            log.warning("readiness_failed", error=type(error).__name__)
            missing = [type(error).__name__]
        if missing:
            return JSONResponse({"status": "not ready", "missing": missing}, 503)
        return JSONResponse({"status": "ready"})

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


def at_once(dependency: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """A plain function as a dependency that is called where it is needed.

    The framework runs it in a thread otherwise: a hundred times the work of looking up a pool.
    """

    @wraps(dependency)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return dependency(*args, **kwargs)

    return call


class Edge:
    """Bounds the body, refuses NUL in the address, and records each request once."""

    def __init__(
        self, app: ASGIApp, *, direct: Mapping[tuple[str, str], Direct] = NOTHING_DIRECT
    ) -> None:
        self.app = app
        self.direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self.app(scope, receive, send)
            return
        direct = self.direct.get((scope["method"], scope["path"]))
        started = time.perf_counter()
        status = 500
        request_id = str(new_id())

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            telemetry.span(
                f"{scope['method']} {scope['path']}",
                kind=SpanKind.SERVER,
                traceparent=header(scope, b"traceparent"),
            ),
        ):
            try:
                check_address(scope)
                if direct is not None:
                    request = Request(scope, bounded(scope, receive))
                    await (await answer(direct, request))(scope, receive, send_with_id)
                else:
                    await self.app(scope, bounded(scope, receive), send_with_id)
            except Problem as problem:
                await problem.response()(scope, receive, send_with_id)
            finally:
                seconds = time.perf_counter() - started
                route = scope["path"] if direct else route_of(scope)
                HTTP_REQUESTS.labels(scope["method"], route, status).inc()
                HTTP_SECONDS.labels(scope["method"], route).observe(seconds)
                log.info(
                    "request_answered",
                    method=scope["method"],
                    route=route,
                    status=status,
                    duration_ms=round(seconds * 1000, 2),
                )


async def answer(direct: Direct, request: Request) -> Response:
    """The answer given in front of the framework; to errors as the app's handlers give it."""
    try:
        return await direct(request)
    except Exception as error:
        return await problems.answer_to(request, error)


def route_of(scope: Scope) -> str:
    path: str = getattr(scope.get("route"), "path", "unmatched")
    return path


def header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return None


def check_address(scope: Scope) -> None:
    if "\x00" in scope["path"] or b"%00" in scope.get("query_string", b""):
        raise Problem(400, "malformed_address", "The address contains the NUL character.")


def bounded(scope: Scope, receive: Receive) -> Receive:
    """A receive that gives up on a body over the limit, or one that does not come to its end.

    Raises Problem 413, and 408 after BODY_SECONDS_MAX.
    """
    declared = header(scope, b"content-length")
    if declared and declared.isdigit() and int(declared) > BODY_BYTES_MAX:
        raise too_large()
    total = 0
    complete = False
    deadline = asyncio.get_running_loop().time() + BODY_SECONDS_MAX

    async def receive_bounded() -> Message:
        nonlocal total, complete
        if complete:  # what comes next is the end of the connection, whenever that is
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise too_slow() from error
        complete = not message.get("more_body", False)
        total += len(message.get("body", b""))
        if total > BODY_BYTES_MAX:
            raise too_large()
        return message

    return receive_bounded


def too_large() -> Problem:
    return Problem(413, "body_too_large", f"The body may have {BODY_BYTES_MAX} bytes at most.")


def too_slow() -> Problem:
    return Problem(
        408,
        "body_too_slow",
        f"The body did not arrive within {BODY_SECONDS_MAX} seconds.",
        field="body",
        headers={"Connection": "close"},
    )
