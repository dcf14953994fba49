"""identity as its callers see it: the real app over a real PostgreSQL, with a clock of the test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
from fastapi import FastAPI

from common import db
from common.ids import new_id
from identity.app import create_app
from identity.bootstrap import make_first_admin
from identity.context import Context
from identity.settings import IdentitySettings

ISSUER = "https://identity.invalid"
ADMIN_LOGIN = "admin@federation.invalid"
PASSWORD = "an invented passphrase"


@dataclass
class TestClock:
    """A clock that moves only when the test says so."""

    __test__ = False
    now: datetime = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


def make_settings(dsn: str, **more: Any) -> IdentitySettings:
    return IdentitySettings(
        database_url=dsn,
        kafka_bootstrap="127.0.0.1:1",
        token_issuer=ISSUER,
        jwks_url=f"{ISSUER}/.well-known/jwks.json",
        card_pepper="pepper " * 8,
        key_secret="key secret " * 4,
        **more,
    )


@dataclass
class Caller:
    """An HTTP client with somebody's token. Every command gets a fresh Idempotency-Key."""

    http: httpx.AsyncClient
    token: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    async def send(
        self, method: str, path: str, body: Any = None, *, key: str | None = None
    ) -> httpx.Response:
        headers = {"Idempotency-Key": key or str(uuid4()), **self.headers}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        return await self.http.request(method, path, json=body, headers=headers)

    async def get(self, path: str) -> httpx.Response:
        return await self.send("GET", path)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        return await self.send("POST", path, body, key=key)

    async def put(self, path: str, body: Any, *, key: str | None = None) -> httpx.Response:
        return await self.send("PUT", path, body, key=key)

    async def made(self, path: str, body: Any) -> dict[str, Any]:
        """POST what must succeed."""
        answer = await self.post(path, body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


@dataclass
class Network:
    """The app, its database, its clock, and callers by name."""

    app: FastAPI
    settings: IdentitySettings
    clock: TestClock
    http: httpx.AsyncClient
    conn: asyncpg.Connection
    admin: Caller

    @property
    def context(self) -> Context:
        context: Context = self.app.state.context
        return context

    async def token_request(self, **form: str) -> httpx.Response:
        return await self.http.post("/v1/oauth/token", data=form)

    async def login(self, email: str, password: str = PASSWORD, **more: str) -> dict[str, Any]:
        answer = await self.token_request(
            grant_type="password", username=email, password=password, **more
        )
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def caller(self, email: str) -> Caller:
        return Caller(self.http, (await self.login(email))["access_token"])

    async def city(self, city_id: str) -> str:
        body = {"city_id": city_id, "name": city_id.title(), "timezone": "Europe/Paris"}
        await self.admin.made("/v1/cities", body)
        return city_id

    async def member(
        self, city_id: str | None, *roles: str, email: str | None = None
    ) -> dict[str, Any]:
        """A member with a login, and these roles."""
        email = email or f"m{uuid4().hex[:10]}@{city_id or 'federation'}.invalid"
        made = await self.admin.made(
            "/v1/members",
            {
                "city_id": city_id,
                "display_name": "Invented Person",
                "email": email,
                "password": PASSWORD,
            },
        )
        if roles:
            path = f"/v1/members/{made['member_id']}/roles"
            answer = await self.admin.put(path, {"roles": list(roles), "places": {}})
            assert answer.status_code == 200, answer.text
            made = answer.json()
        return made

    async def somebody(self, city_id: str | None, *roles: str) -> tuple[Caller, dict[str, Any]]:
        made = await self.member(city_id, *roles)
        return await self.caller(made["email"]), made

    async def events(self, topic: str) -> list[dict[str, Any]]:
        rows = await self.conn.fetch(
            "SELECT payload FROM outbox WHERE topic = $1 ORDER BY id", topic
        )
        return [row["payload"] for row in rows]


@asynccontextmanager
async def running(settings: IdentitySettings, clock: TestClock) -> AsyncIterator[Network]:
    await make_first_admin(
        settings,
        email=ADMIN_LOGIN,
        password=PASSWORD,
        display_name="Admin",
        member_id=new_id(),
        now=clock(),
    )
    app = create_app(settings, clock)
    conn = await db.connect(settings.database_url.get_secret_value(), name="test")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://identity.invalid") as http,
        ):
            network = Network(app, settings, clock, http, conn, Caller(http))
            network.admin = await network.caller(ADMIN_LOGIN)
            yield network
    finally:
        await conn.close()
