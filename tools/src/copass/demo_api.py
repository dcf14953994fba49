"""What seed, demo and simulate share: the network's HTTP API as a small client.

Every command carries an Idempotency-Key and every tap a tap_id, so each call may be sent again; the
client does so, within a written bound, when a service restarts or a connection breaks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlencode
from uuid import UUID, uuid4

import orjson

from copass.lean_http import Answer, LeanClient

SERVICES = ("identity", "timebank", "access", "places")
PORTS = {"portal": 0, "identity": 1, "timebank": 2, "access": 3, "places": 4}
REQUEST_TIMEOUT_S = 10.0
RETRY_FOR_S = 20.0
RETRY_PAUSE_MAX_S = 1.0
TOKEN_LIFETIME_S = 480.0  # of the 600 that identity gives
RETRIED = frozenset({429, 500, 502, 503, 504})

JSON = {"Content-Type": "application/json"}

Direction = Literal["in", "out"]


class ApiError(Exception):
    """A service refused: `status`, the problem's `code`, and its fields' names."""

    def __init__(self, status: int, problem: Mapping[str, Any], request: str) -> None:
        super().__init__(f"{request}: {status} {problem.get('code')} {problem.get('detail', '')}")
        self.status = status
        self.code = str(problem.get("code", ""))
        self.fields = tuple(str(error.get("field")) for error in problem.get("errors") or ())


class Unreachable(Exception):
    """No answer within the time that the caller was ready to wait."""


@dataclass(frozen=True, slots=True)
class Login:
    email: str
    password: str


@dataclass(frozen=True, slots=True)
class Tap:
    """One presentation of a card. Sent again after a failure, it stays the same tap."""

    tap_id: UUID
    door_id: UUID
    uid: str
    direction: Direction
    occurred_at: datetime

    def body(self) -> dict[str, Any]:
        return {
            "tap_id": str(self.tap_id),
            "door_id": str(self.door_id),
            "credential": {"type": "uid", "uid": self.uid},
            "direction": self.direction,
            "occurred_at": self.occurred_at.isoformat(),
            "mode": "live",
        }


@dataclass(frozen=True, slots=True)
class TapAnswer:
    decision: str
    reason: str
    decision_id: str
    message: dict[str, str]
    elapsed_ms: float

    @property
    def granted(self) -> bool:
        return self.decision == "grant"


def base_urls(port_base: int, host: str = "127.0.0.1") -> dict[str, str]:
    return {name: f"http://{host}:{port_base + n}" for name, n in PORTS.items()}


def new_tap(door_id: UUID, uid: str, direction: Direction = "in") -> Tap:
    return Tap(uuid4(), door_id, uid, direction, datetime.now(UTC))


class Api:
    """Use with `open_api`. All methods raise ApiError for a refusal, Unreachable for silence."""

    def __init__(self, client: LeanClient, urls: Mapping[str, str], retry_for_s: float) -> None:
        self._client = client
        self._retry_for_s = retry_for_s
        self._urls = dict(urls)
        self._tokens: dict[str, tuple[str, float]] = {}
        self._token_locks: dict[str, asyncio.Lock] = {}
        self.retries = 0

    def url_of(self, service: str) -> str:
        return self._urls[service]

    async def token(self, login: Login) -> str:
        lock = self._token_locks.setdefault(login.email, asyncio.Lock())
        async with lock:
            token, until = self._tokens.get(login.email, ("", 0.0))
            if time.monotonic() < until:
                return token
            form = {
                "grant_type": "password",
                "username": login.email,
                "password": login.password,
            }
            answer = await self._send(
                "identity",
                "POST",
                "/v1/oauth/token",
                {"Content-Type": "application/x-www-form-urlencoded"},
                urlencode(form).encode(),
            )
            token = str(answer["access_token"])
            self._tokens[login.email] = (token, time.monotonic() + TOKEN_LIFETIME_S)
            return token

    async def get(
        self, service: str, path: str, login: Login | None = None, **params: Any
    ) -> dict[str, Any]:
        headers = {} if login is None else {"Authorization": f"Bearer {await self.token(login)}"}
        query = f"?{urlencode(params)}" if params else ""
        return await self._send(service, "GET", path + query, headers)

    async def download(self, service: str, path: str, login: Login) -> bytes:
        """A file, as it is."""
        headers = {"Authorization": f"Bearer {await self.token(login)}"}
        answer = await self._fetch(service, "GET", path, headers)
        if answer.status != 200:
            parse(answer, f"GET {service} {path}")
        return answer.body

    async def command(
        self,
        service: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        *,
        login: Login,
        key: str | None = None,
    ) -> dict[str, Any]:
        headers = {
            "Authorization": f"Bearer {await self.token(login)}",
            "Idempotency-Key": key or str(uuid4()),
        }
        if body is None:
            return await self._send(service, method, path, headers)
        return await self._send(service, method, path, headers | JSON, orjson.dumps(body))

    async def tap(self, tap: Tap, reader_key: str) -> TapAnswer:
        """Asks for a decision. After a failure the same tap is sent again."""
        started = time.perf_counter()
        headers = {"Authorization": f"Bearer {reader_key}"} | JSON
        body = orjson.dumps(tap.body())
        answer = await self._send("access", "POST", "/v1/taps", headers, body)
        return TapAnswer(
            answer["decision"],
            answer["reason"],
            str(answer["decision_id"]),
            answer["message"],
            (time.perf_counter() - started) * 1000,
        )

    async def ready(self, service: str) -> bool:
        try:
            answer = await self._client.request("GET", f"{self._urls[service]}/readyz", {})
        except (OSError, TimeoutError):
            return False
        return answer.status == 200

    async def _send(
        self,
        service: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> dict[str, Any]:
        answer = await self._fetch(service, method, path, headers, body)
        return parse(answer, f"{method} {service} {path}")

    async def _fetch(
        self,
        service: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
    ) -> Answer:
        """The first answer that another try would not better, within the time to wait."""
        url = self._urls[service] + path
        deadline = time.monotonic() + self._retry_for_s
        pause_s = 0.05
        while True:
            try:
                answer = await self._client.request(method, url, headers, body)
                if answer.status not in RETRIED:
                    return answer
                trouble = f"{answer.status} {answer.body[:200].decode(errors='replace')}"
            except (OSError, TimeoutError) as error:
                trouble = f"{type(error).__name__} {error}"
            if time.monotonic() + pause_s > deadline:
                raise Unreachable(f"{method} {url}: {trouble}")
            self.retries += 1
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_PAUSE_MAX_S)


def parse(answer: Answer, request: str) -> dict[str, Any]:
    try:
        body = orjson.loads(answer.body) if answer.body else {}
    except ValueError:
        body = {"code": "not_json", "detail": answer.body[:200].decode(errors="replace")}
    if 200 <= answer.status < 300:
        return dict(body)
    raise ApiError(answer.status, body, request)


@asynccontextmanager
async def open_api(
    urls: Mapping[str, str], *, connections: int = 32, retry_for_s: float = RETRY_FOR_S
) -> AsyncIterator[Api]:
    client = LeanClient(connections_max=connections, timeout_s=REQUEST_TIMEOUT_S)
    try:
        yield Api(client, urls, retry_for_s)
    finally:
        await client.close()
