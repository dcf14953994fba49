"""One request of one visitor: language, session, forms; and every answer, with its cookies."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode, urlsplit

import jinja2
from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup

from common.logging import get_logger
from portal import views
from portal.cities import CityZones
from portal.i18n import LANGUAGES, Speech, preferred
from portal.network import Network, Refused, Unavailable
from portal.overview import OverviewCache
from portal.session import SESSION_SECONDS_MAX, FormTokens, Seal, Session
from portal.settings import PortalSettings
from portal.views import Tokens

# A token that would end during the request is renewed before it.
RENEW_BEFORE_S = 60
LANGUAGE_KEPT_S = 365 * 24 * 3600
NEXT_CHARS_MAX = 500
FIELDS_MAX = 40
NOTHING_ELSE: Mapping[str, str] = {}

T = TypeVar("T")

log = get_logger(__name__)


class SignInNeeded(Exception):
    """The page is for members, and nobody is signed in (any more)."""


class FormRejected(Exception):
    """A post that did not come from one of our own forms. Nothing was done."""


@dataclass(frozen=True, slots=True)
class Portal:
    """What every request needs, made once."""

    settings: PortalSettings
    network: Network
    overview: OverviewCache
    zones: CityZones
    seal: Seal
    forms: FormTokens
    templates: jinja2.Environment
    clock: Callable[[], datetime]

    def cookie(self, name: str) -> str:
        """`__Host-` cookies cannot be set by another host of the domain, but need https."""
        return f"__Host-{name}" if self.settings.secure else name


def portal_of(request: Request) -> Portal:
    portal: Portal = request.app.state.portal
    return portal


class Visit:
    """Made by `visit`, asked by the routes. `session` is None for somebody not signed in."""

    def __init__(self, request: Request) -> None:
        portal = portal_of(request)
        self.request = request
        self.portal = portal
        self.network = portal.network
        self.now = portal.clock()
        cookies = request.cookies
        language = preferred(
            cookies.get(portal.cookie("language")), request.headers.get("accept-language")
        )
        self.t = Speech(language)
        sealed = cookies.get(portal.cookie("session"))
        self.session = portal.seal.open(sealed, self.epoch) if sealed else None
        self._session_changed = sealed is not None and self.session is None
        self._form_cookie = cookies.get(portal.cookie("form"))
        self._form_cookie_new = False
        self._renewal_failed = False

    @property
    def epoch(self) -> int:
        return int(self.now.timestamp())

    @property
    def address(self) -> str:
        return self.request.client.host if self.request.client else ""

    # --- signed in

    async def renew(self) -> None:
        """Get a new access token when the old one is about to end; end the session if refused."""
        if self.session is None or self.session.expires_at - self.epoch > RENEW_BEFORE_S:
            return
        try:
            tokens = await self.network.refresh(self.session.refresh_token)
        except Refused:
            self.end()
        except Unavailable:
            self._renewal_failed = self.session.expires_at <= self.epoch
        else:
            self._keep(
                replace(
                    self.session,
                    access_token=tokens.access_token,
                    refresh_token=tokens.refresh_token,
                    expires_at=self.epoch + tokens.expires_in,
                )
            )

    def member(self) -> Session:
        """The session. Raises SignInNeeded, or Unavailable when it could not be renewed."""
        if self.session is None:
            raise SignInNeeded
        if self._renewal_failed:
            raise Unavailable("identity")
        return self.session

    async def start(self, tokens: Tokens) -> None:
        """Sign in. Raises Unavailable and Refused."""
        me = await self.network.me(tokens.access_token)
        self._keep(
            Session(
                access_token=tokens.access_token,
                refresh_token=tokens.refresh_token,
                expires_at=self.epoch + tokens.expires_in,
                member_id=str(me.member_id),
                city_id=me.city_id,
                # A cookie is small, and a greeting needs no more.
                name=me.display_name[:80],
                roles=tuple(me.roles[:20]),
            )
        )
        # Forms that were on the screen before belong to nobody.
        self._form_cookie, self._form_cookie_new = self.portal.forms.new_cookie(), True

    def end(self) -> None:
        self.session = None
        self._session_changed = True

    def _keep(self, session: Session) -> None:
        self.session = session
        self._session_changed = True

    # --- what the services say

    async def part(self, asked: Awaitable[T]) -> T | None:
        """One part of a page, or None when its service is away or will not tell: the rest stays."""
        try:
            return await asked
        except Unavailable:
            return None
        except Refused as refused:
            if refused.status == 401:
                raise
            return None

    def words(self, refused: Refused, said: Mapping[str, str] = NOTHING_ELSE) -> Markup:
        """Why a service said no, in the visitor's language. `said`: the key for a code that has
        another meaning where it was asked."""
        key = said.get(refused.code, f"problem.{refused.code}")
        return self.t(key if self.t.knows(key) else "problem.other")

    def refused(
        self, refused: Refused, back: str, said: Mapping[str, str] = NOTHING_ELSE
    ) -> Response:
        """The page for a command that was refused, with the way back to where it was asked.

        Raises the refusal itself when signing in again is what it takes.
        """
        if refused.status == 401:
            raise refused
        return self.message(
            refused.status, self.t("error.not_done"), self.words(refused, said), back=back
        )

    # --- forms

    async def form(self) -> dict[str, str]:
        """The fields of one of our own forms. Raises FormRejected for anybody else's.

        Three walls: SameSite cookies, the browser's own word on the origin, and a token that only
        our pages know.
        """
        request, portal = self.request, self.portal
        if not from_our_pages(request.headers, portal.settings):
            raise FormRejected
        if not request.headers.get("content-type", "").startswith(
            "application/x-www-form-urlencoded"
        ):
            raise FormRejected
        async with request.form(max_fields=FIELDS_MAX) as form:
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
        if not portal.forms.holds(self._form_cookie, fields.pop("form_token", "")):
            raise FormRejected
        # PostgreSQL and people can do without NUL.
        return {name: value.replace("\x00", "").strip() for name, value in fields.items()}

    def form_token(self) -> Markup:
        """The hidden field that `form` looks for."""
        if self._form_cookie is None:
            self._form_cookie = self.portal.forms.new_cookie()
            self._form_cookie_new = True
        token = self.portal.forms.token(self._form_cookie)
        return Markup('<input type="hidden" name="form_token" value="{}">').format(token)

    # --- answers

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """A page, in the visitor's language."""
        t, here = self.t, self.request.url.path
        other = next(language for language in LANGUAGES if language != t.language)
        back = here if self.request.method == "GET" else "/"
        if self.request.method == "GET" and self.request.url.query:
            back += f"?{self.request.url.query}"
        html = self.portal.templates.get_template(template).render(
            t=t,
            session=self.session,
            here=here,
            asset=asset,
            form_token=self.form_token,
            other_language=other,
            language_link="/language?" + urlencode({"to": other, "next": back[:NEXT_CHARS_MAX]}),
            hours_in_words=views.hours_in_words,
            **values,
        )
        return self._with_cookies(
            HTMLResponse(html, status, headers={"Content-Language": t.language})
        )

    def message(self, status: int, title: str, text: str, back: str = "") -> Response:
        return self.page("message.html", status, title=title, text=text, back=back)

    def download(self, content: bytes, name: str, media_type: str) -> Response:
        """A file to keep. `name` is ours: letters, digits, dots and hyphens."""
        disposition = f'attachment; filename="{name}"'
        headers = {"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"}
        return self._with_cookies(Response(content, headers=headers, media_type=media_type))

    def redirect(self, to: str) -> Response:
        """See other: the browser asks for `to` with GET. `to` is one of our own paths."""
        return self._with_cookies(RedirectResponse(to, 303))

    def choose_language(self, language: str, to: str) -> Response:
        response = self.redirect(to)
        self._set_cookie(response, "language", language, LANGUAGE_KEPT_S)
        return response

    def _with_cookies(self, response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        response.headers["Vary"] = "Accept-Language, Cookie"
        if self._form_cookie_new and self._form_cookie:
            self._set_cookie(response, "form", self._form_cookie, None)
        if self._session_changed:
            if self.session is None:
                self._set_cookie(response, "session", "", 0)
            else:
                sealed = self.portal.seal.close(self.session, self.epoch)
                self._set_cookie(response, "session", sealed, SESSION_SECONDS_MAX)
        return response

    def _set_cookie(self, response: Response, name: str, value: str, max_age: int | None) -> None:
        response.set_cookie(
            self.portal.cookie(name),
            value,
            max_age=max_age,
            path="/",
            httponly=True,
            samesite="lax",
            secure=self.portal.settings.secure,
        )


def from_our_pages(headers: Mapping[str, str], settings: PortalSettings) -> bool:
    """Whether the browser says that a post comes from the site that it goes to."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:  # not a browser, or a very old one: the form's token decides
        return True
    sender = urlsplit(origin.lower()).netloc
    return bool(sender) and sender in (
        urlsplit(settings.public_url.lower()).netloc,
        headers.get("host", "").lower(),
    )


async def visit(request: Request) -> Visit:
    """The visit of this request, its session renewed."""
    made = Visit(request)
    request.state.visit = made
    await made.renew()
    return made


def visit_so_far(request: Request) -> Visit:
    """The visit that the route had when it failed, so that its cookies are not lost."""
    made: Visit | None = getattr(request.state, "visit", None)
    return made or Visit(request)


CurrentVisit = Annotated[Visit, Depends(visit)]


def local_path(to: str, default: str = "/") -> str:
    """`to` when it is a path of ours, else `default`: nobody is sent to another site by us."""
    parts = urlsplit(to[:NEXT_CHARS_MAX])
    plain = to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable()
    return to if plain and not parts.scheme and not parts.netloc and "\\" not in to else default


def next_link(path: str, cursor: str, **asked: Any) -> str:
    """Where the next page of a list is, with what was asked of this one."""
    kept = {name: "true" if value is True else value for name, value in asked.items() if value}
    return f"{path}?" + urlencode({**kept, "cursor": cursor})


@cache
def asset(name: str) -> str:
    """The address of a static file, with a hash so that browsers may keep it for ever."""
    content = files("portal").joinpath("static", name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


def city_name(slug: str | None) -> str:
    """`saint-denis` → `Saint-Denis`."""
    return "-".join(part.capitalize() for part in (slug or "").split("-"))


def number_first(text: Markup) -> Markup:
    """The number at the start of a text, made big: `<b>12</b> villes`."""
    number, _, rest = str(text).partition(" ")
    return Markup("<b>{}</b> {}").format(Markup(number), Markup(rest))  # noqa: S704 - both escaped


def make_templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("portal"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["city_name"] = city_name
    templates.filters["number_first"] = number_first
    return templates
