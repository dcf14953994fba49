"""Puts the portal together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlencode

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.clock import Clock, utc_now
from common.logging import get_logger
from common.web import Edge, health_router
from portal import __version__
from portal.audit import routes as audit
from portal.board import exchanges, listings, search
from portal.cities import CityZones
from portal.clearing import cities, positions
from portal.clearing import netting as nettings
from portal.clearing import routes as clearing
from portal.contributions import routes as contributions
from portal.doors import routes as doors
from portal.me import routes as me
from portal.network import Network, Refused, Unavailable, make_http
from portal.notices import routes as notices
from portal.overview import OverviewCache
from portal.passes import routes as passes
from portal.pledges import routes as pledges
from portal.routes import router
from portal.session import FormTokens, Seal
from portal.settings import PortalSettings
from portal.solidarity import routes as solidarity
from portal.time import home
from portal.time import routes as time
from portal.visit import (
    FormRejected,
    Portal,
    SignInNeeded,
    Visit,
    local_path,
    make_templates,
    visit_so_far,
)

log = get_logger(__name__)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    # Not no-referrer: with it, browsers send the Origin of our own forms as "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Frame-Options": "DENY",
}
HSTS = "max-age=31536000; includeSubDomains"


def from_environment() -> FastAPI:
    """For uvicorn: the settings come from the environment."""
    return create_app(PortalSettings())


def create_app(
    settings: PortalSettings,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Clock = utc_now,
) -> FastAPI:
    """The app. `transport` stands in for the network to the other services."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with make_http(transport) as http:
            network = Network(settings, http)
            overview = OverviewCache(network)
            secret = settings.session_secret.get_secret_value()
            app.state.portal = Portal(
                settings=settings,
                network=network,
                overview=overview,
                zones=CityZones(network),
                seal=Seal(secret),
                forms=FormTokens(secret),
                templates=make_templates(),
                clock=clock,
            )
            try:
                yield
            finally:
                await overview.close()
                await network.close()

    app = FastAPI(
        title="Copass portal",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.include_router(router)
    for pages in (
        home,
        time,
        clearing,
        cities,
        positions,
        nettings,
        audit,
        doors,
        contributions,
        pledges,
        solidarity,
        notices,
        me,
        passes,
        search,
        exchanges,
        listings,
    ):
        app.include_router(pages.router)
    app.include_router(health_router(ready))
    app.mount("/static", Static(directory=Path(str(files("portal").joinpath("static")))))
    app.add_exception_handler(SignInNeeded, on_sign_in_needed)
    app.add_exception_handler(FormRejected, on_form_rejected)
    app.add_exception_handler(Unavailable, on_unavailable)
    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(Exception, on_unforeseen)
    app.add_middleware(Edge)
    app.add_middleware(SafeHeaders, secure=settings.secure)
    return app


async def ready() -> list[str]:
    """Always: a page without its service says so, which is better than no page."""
    return []


class Static(StaticFiles):
    """Files whose address has a hash of their content."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]  # passed on
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


class SafeHeaders:
    """On every answer, also on errors: nothing inline, nothing foreign, no frames. A page that says
    more of itself keeps its word.
    """

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self.app = app
        self.headers = dict(HEADERS)
        if secure:
            self.headers["Strict-Transport-Security"] = HSTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = message.get("headers", [])
                own = {name for name, _ in said}
                ours = ((k.lower().encode(), v.encode()) for k, v in self.headers.items())
                message["headers"] = [*said, *(pair for pair in ours if pair[0] not in own)]
            await send(message)

        await self.app(scope, receive, send_with_headers)


# --- what went wrong, in plain words


async def on_sign_in_needed(request: Request, _error: Exception) -> Response:
    visit = visit_so_far(request)
    to = request.url.path if request.method == "GET" else ""
    query = urlencode({"next": local_path(to, "")}) if to else ""
    return visit.redirect(f"/sign-in?{query}" if query else "/sign-in")


async def on_form_rejected(request: Request, _error: Exception) -> Response:
    visit = visit_so_far(request)
    t = visit.t
    return visit.message(403, t("error.form_expired_title"), t("error.form_expired"))


async def on_unavailable(request: Request, error: Exception) -> Response:
    if not isinstance(error, Unavailable):
        raise error
    visit = visit_so_far(request)
    t = visit.t
    response = visit.message(503, t("error.unavailable_title"), t(f"unavailable.{error.service}"))
    response.headers["Retry-After"] = "5"
    return response


async def on_refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise error
    visit = visit_so_far(request)
    if error.status == 401:
        # The session was ended elsewhere: suspended, or signed out everywhere.
        visit.end()
        return await on_sign_in_needed(request, error)
    return explain(visit, error.status)


async def on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    response = explain(visit_so_far(request), error.status_code)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def on_invalid_request(request: Request, _error: Exception) -> Response:
    """An address that names nothing: `/places/abc`, `?open_now=perhaps`."""
    return explain(visit_so_far(request), 404)


async def on_unforeseen(request: Request, error: Exception) -> Response:
    log.error("request_failed", exc_info=error)
    visit = visit_so_far(request)
    response = visit.message(500, visit.t("error.title"), visit.t("error.internal"))
    # This handler answers from outside SafeHeaders.
    response.headers.update(HEADERS)
    return response


def explain(visit: Visit, status: int) -> Response:
    """The page for a 4xx."""
    t = visit.t
    if status == 404:
        return visit.message(404, t("error.not_found_title"), t("error.not_found"))
    if status == 403:
        return visit.message(403, t("error.title"), t("error.forbidden"))
    return visit.message(status, t("error.title"), t("error.bad_request"))
