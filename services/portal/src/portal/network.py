"""The other services, as the pages see them. Every wait is bounded; only connecting is retried."""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from common.logging import get_logger
from common.telemetry import current_traceparent
from portal.settings import PortalSettings
from portal.views import (
    Account,
    Card,
    Me,
    Openness,
    Page,
    Place,
    Posting,
    Presence,
    Tokens,
    Transfer,
)

M = TypeVar("M", bound=BaseModel)
Service = Literal["identity", "timebank", "access", "places"]

TIMEOUT = httpx.Timeout(6.0, connect=1.5, pool=1.5)
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=40, keepalive_expiry=20.0)
REFRESHED_KEPT_S = 60.0
REFRESHED_KEPT_MAX = 2000
DOWNLOAD_BYTES_MAX = 20 * 2**20
STREAM_QUIET_S = 40.0

log = get_logger(__name__)


class Unavailable(Exception):
    """A service did not answer, answered too late, or answered nonsense."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.service = service


class Refused(Exception):
    """A service said no: a 4xx problem. `code` is stable, `detail` is in English.

    `field` is the first field at fault, as the service names it (`body.minutes`), or empty.
    """

    def __init__(
        self, service: Service, status: int, code: str, detail: str, field: str = ""
    ) -> None:
        super().__init__(f"{service}: {status} {code}")
        self.service = service
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field


@dataclass(frozen=True, slots=True)
class Gift:
    """Minutes that a member sends, to an account or to a member: of their city, or of `to_city`.

    The id is also the idempotency key.
    """

    transfer_id: UUID
    from_account: UUID
    to_account: UUID | None
    to_member: UUID | None
    minutes: int
    memo: str
    to_city: str | None = None


def make_http(transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=TIMEOUT,
        limits=LIMITS,
        transport=transport or httpx.AsyncHTTPTransport(retries=1, limits=LIMITS),
        follow_redirects=False,
        trust_env=False,
    )


class Network:
    """One method per question. All raise Unavailable and Refused."""

    def __init__(self, settings: PortalSettings, http: httpx.AsyncClient) -> None:
        self._http = http
        self._base: dict[Service, str] = {
            "identity": settings.identity_url,
            "timebank": settings.timebank_url,
            "access": settings.access_url,
            "places": settings.places_url,
        }
        self._refreshing: OrderedDict[str, tuple[float, asyncio.Task[Tokens]]] = OrderedDict()

    async def close(self) -> None:
        """End the renewals that nobody waits for any more."""
        tasks = [task for _, task in self._refreshing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._refreshing.clear()

    # --- identity

    async def sign_in(self, email: str, password: str, address: str) -> Tokens:
        """`address` is the visitor's: identity counts failed attempts by it."""
        form = {"grant_type": "password", "username": email, "password": password}
        answer = await self.call("identity", "POST", "/v1/oauth/token", form=form, address=address)
        return fit("identity", Tokens, answer)

    async def sign_out(self, refresh_token: str) -> None:
        """End the session at identity too, so that a copied cookie is worth nothing."""
        await self.call("identity", "POST", "/v1/oauth/revoke", form={"token": refresh_token})

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens for a refresh token.

        A refresh token is good once, and using it twice ends the session everywhere. A browser
        that opens three pages at once brings the same one three times: they share one call, and
        for a minute the late ones get the first answer.
        """
        key = hashlib.sha256(refresh_token.encode()).hexdigest()
        now = time.monotonic()
        while self._refreshing:
            oldest, (since, _) = next(iter(self._refreshing.items()))
            if now - since < REFRESHED_KEPT_S and len(self._refreshing) < REFRESHED_KEPT_MAX:
                break
            del self._refreshing[oldest]
        if key not in self._refreshing:
            self._refreshing[key] = (now, asyncio.create_task(self._refresh(refresh_token)))
        task = self._refreshing[key][1]
        try:
            # A reader who goes away must not cancel the call for the others.
            return await asyncio.shield(task)
        except Unavailable:
            self._refreshing.pop(key, None)
            raise

    async def _refresh(self, refresh_token: str) -> Tokens:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        answer = await self.call("identity", "POST", "/v1/oauth/token", form=form)
        return fit("identity", Tokens, answer)

    async def me(self, token: str) -> Me:
        return fit("identity", Me, await self.call("identity", "GET", "/v1/me", token=token))

    async def cards(self, token: str, member_id: str) -> list[Card]:
        params = {"member_id": member_id, "limit": "100"}
        found = await self.call("identity", "GET", "/v1/cards", token=token, params=params)
        return fit_all("identity", Card, found)

    async def block(self, token: str, card_id: UUID, reason: str, key: str) -> None:
        await self.call(
            "identity",
            "POST",
            f"/v1/cards/{card_id}/block",
            token=token,
            json={"reason": reason},
            key=key,
        )

    # --- places

    async def places(
        self,
        *,
        city: str = "",
        text: str = "",
        open_now: bool = False,
        limit: int = 50,
        cursor: str = "",
    ) -> Page:
        params = {"limit": str(limit)}
        if city:
            params["city_id"] = city
        if text:
            params["q"] = text
        if open_now:
            params["open_now"] = "true"
        if cursor:
            params["cursor"] = cursor
        answer = await self.call("places", "GET", "/v1/places", params=params)
        return fit("places", Page, answer)

    async def place(self, place_id: UUID) -> Place:
        return fit("places", Place, await self.call("places", "GET", f"/v1/places/{place_id}"))

    async def openness(self, place_id: UUID) -> Openness:
        answer = await self.call("places", "GET", f"/v1/places/{place_id}/openness")
        return fit("places", Openness, answer)

    # --- timebank

    async def accounts(self, token: str, owner_id: str) -> list[Account]:
        params = {"owner_id": owner_id}
        found = await self.call("timebank", "GET", "/v1/accounts", token=token, params=params)
        return fit_all("timebank", Account, found)

    async def postings(self, token: str, account_id: UUID, limit: int = 20) -> list[Posting]:
        path = f"/v1/accounts/{account_id}/postings"
        params = {"limit": str(limit)}
        found = await self.call("timebank", "GET", path, token=token, params=params)
        return fit_all("timebank", Posting, found)

    async def give(self, token: str, gift: Gift) -> None:
        body: dict[str, Any] = {
            "transfer_id": str(gift.transfer_id),
            "from_account": str(gift.from_account),
            "minutes": gift.minutes,
        }
        if gift.to_account:
            body["to_account"] = str(gift.to_account)
        else:
            body["to_member"] = str(gift.to_member)
        if gift.memo:
            body["memo"] = gift.memo
        key = str(gift.transfer_id)
        await self.call("timebank", "POST", "/v1/transfers", token=token, json=body, key=key)

    async def transfer(self, token: str, transfer_id: UUID) -> Transfer:
        path = f"/v1/transfers/{transfer_id}"
        return fit("timebank", Transfer, await self.call("timebank", "GET", path, token=token))

    # --- access

    async def presence(self, token: str, place_id: UUID) -> Presence:
        path = f"/v1/places/{place_id}/presence"
        return fit("access", Presence, await self.call("access", "GET", path, token=token))

    # --- all

    async def call(
        self,
        service: Service,
        method: str,
        path: str,
        *,
        token: str | None = None,
        key: str | None = None,
        json: dict[str, Any] | None = None,
        form: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        address: str | None = None,
    ) -> dict[str, Any]:
        """The JSON object that a service answers. Raises Unavailable and Refused."""
        headers = {"Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if key:
            headers["Idempotency-Key"] = key
        if address:
            headers["X-Forwarded-For"] = address
        if traceparent := current_traceparent():
            headers["traceparent"] = traceparent
        try:
            answer = await self._http.request(
                method,
                self._base[service] + path,
                headers=headers,
                json=json,
                data=form,
                params=params,
            )
            # An empty 2xx says yes and nothing else (RFC 7009).
            body = answer.json() if answer.content else {}
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            log.warning("service_unavailable", to=service, error=type(error).__name__)
            raise Unavailable(service) from error
        if 200 <= answer.status_code < 300 and isinstance(body, dict):
            return body
        if 400 <= answer.status_code < 500 and isinstance(body, dict):
            raise Refused(
                service,
                answer.status_code,
                str(body.get("code") or body.get("error") or "refused"),
                str(body.get("detail") or body.get("error_description") or ""),
                first_field(body),
            )
        log.warning("service_unavailable", to=service, status=answer.status_code)
        raise Unavailable(service)

    async def download(
        self, service: Service, path: str, *, token: str, params: dict[str, str] | None = None
    ) -> bytes:
        """A file that a service makes, at most DOWNLOAD_BYTES_MAX. Raises Unavailable, Refused."""
        headers = {"Authorization": f"Bearer {token}"}
        try:
            request = self._http.build_request(
                "GET", self._base[service] + path, headers=headers, params=params
            )
            answer = await self._http.send(request, stream=True)
            try:
                parts, size = [], 0
                async for part in answer.aiter_bytes():
                    size += len(part)
                    if size > DOWNLOAD_BYTES_MAX:
                        raise Unavailable(service)
                    parts.append(part)
            finally:
                await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("service_unavailable", to=service, error=type(error).__name__)
            raise Unavailable(service) from error
        if answer.status_code == 200:
            return b"".join(parts)
        if 400 <= answer.status_code < 500:
            code = re.search(rb'"code" *: *"([a-z_]{1,60})"', b"".join(parts)[:2000])
            raise Refused(
                service, answer.status_code, code.group(1).decode() if code else "refused", ""
            )
        log.warning("service_unavailable", to=service, status=answer.status_code)
        raise Unavailable(service)

    async def stream(
        self, service: Service, path: str, *, token: str, params: dict[str, str]
    ) -> httpx.Response:
        """What a service says bit by bit for as long as it has something to say: it must say at
        least something every STREAM_QUIET_S. To be read with `parts_of`, and closed. Raises
        Unavailable and Refused before the first bit.
        """
        headers = {"Authorization": f"Bearer {token}"}
        request = self._http.build_request(
            "GET",
            self._base[service] + path,
            headers=headers,
            params=params,
            timeout=httpx.Timeout(6.0, connect=1.5, pool=1.5, read=STREAM_QUIET_S),
        )
        try:
            answer = await self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            log.warning("service_unavailable", to=service, error=type(error).__name__)
            raise Unavailable(service) from error
        if answer.status_code != 200:
            await answer.aclose()
            if 400 <= answer.status_code < 500:
                raise Refused(service, answer.status_code, "refused", "")
            raise Unavailable(service)
        return answer


async def parts_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The bits of a stream, until it ends or breaks: the reader comes again."""
    try:
        async for part in answer.aiter_bytes():
            yield part
    except httpx.HTTPError as error:
        log.info("stream_ended", to=answer.request.url.host, error=type(error).__name__)


def first_field(problem: dict[str, Any]) -> str:
    """The first field that a problem document (RFC 9457) names, or nothing."""
    errors = problem.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    return str(first.get("field", "")) if isinstance(first, dict) else ""


def fit(service: Service, model: type[M], data: Any) -> M:
    """The answer as we use it. Raises Unavailable when it lacks what we need."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        log.error("answer_not_understood", of=service, model=model.__name__)
        raise Unavailable(service) from error


def fit_all(service: Service, model: type[M], data: dict[str, Any]) -> list[M]:
    """The items of a list answer."""
    items = data.get("items")
    if not isinstance(items, list):
        raise Unavailable(service)
    return [fit(service, model, item) for item in items]
