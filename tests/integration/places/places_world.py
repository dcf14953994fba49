"""The places service on a real PostgreSQL, spoken to over HTTP with real tokens."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

import places
from common import db
from common.auth import TokenVerifier
from common.clock import utc_now
from common.ids import new_id
from places import store
from places.app import create_app
from places.settings import PlacesSettings

MIGRATIONS = Path(places.__file__).parent / "migrations"
ISSUER = "https://identity.test"
KEY = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
# A Sunday morning in Paris.
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)

NANTES = {
    "city_id": "nantes",
    "name": "Le Dix",
    "profile": "work_enterprise",
    "address": "10 place des Garennes",
    "postcode": "44100",
    "commune": "Nantes",
    "insee_code": "44109",
    "latitude": 47.2,
    "longitude": -1.58,
    "opening_hours": "Mo-Su 09:00-18:00",
    "capacity": 40,
}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def key_set() -> dict[str, Any]:
    raw = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": "k", "alg": "EdDSA"}]}


def token(city: str | None, *roles: str) -> str:
    now = int(utc_now().timestamp())
    claims = {
        "iss": ISSUER,
        "sub": f"{city}-{'-'.join(sorted(roles))}",
        "aud": ["places"],
        "iat": now,
        "exp": now + 600,
        "jti": str(new_id()),
        "kind": "member",
        "city": city,
        "roles": ["member", *roles],
    }
    return jwt.encode(claims, KEY, algorithm="EdDSA", headers={"kid": "k", "typ": "at+jwt"})


@dataclass
class Caller:
    """Somebody with a token, or without one."""

    http: httpx.AsyncClient
    token: str | None = None

    async def send(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, **more: Any
    ) -> httpx.Response:
        headers = {} if method == "GET" else {"Idempotency-Key": key or str(new_id())}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            more["json"] = body
        return await self.http.request(method, f"/v1/{path}", headers=headers, **more)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.send("GET", path, params=params)

    async def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return await self.send("POST", path, body, **more)

    async def made(self, path: str, body: Any) -> dict[str, Any]:
        answer = await self.post(path, body)
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document


@dataclass
class Register:
    """A running places service, with the cities of Nantes and Bourges."""

    app: FastAPI
    http: httpx.AsyncClient
    settings: PlacesSettings
    pool: db.Pool
    now: list[datetime] = field(default_factory=lambda: [NOW])

    def caller(self, city: str | None, *roles: str) -> Caller:
        return Caller(self.http, token(city, *roles))

    @property
    def operator(self) -> Caller:
        return self.caller("nantes", "operator")

    @property
    def federation(self) -> Caller:
        return self.caller(None, "federation_admin")

    @property
    def anybody(self) -> Caller:
        return Caller(self.http)

    def clock(self) -> datetime:
        return self.now[0]

    def pass_time(self, **by: float) -> None:
        self.now[0] += timedelta(**by)

    async def events(self, place_id: str | None = None) -> list[dict[str, Any]]:
        """The data of the events in the outbox, in their order."""
        rows = await self.pool.fetch(
            "SELECT payload FROM outbox WHERE topic = 'places.places.v1'"
            " AND ($1::text IS NULL OR key = $1) ORDER BY id",
            place_id,
        )
        return [row["payload"] for row in rows]


def settings_for(dsn: str, **more: Any) -> PlacesSettings:
    return PlacesSettings(
        database_url=dsn,
        **{
            "kafka_bootstrap": "127.0.0.1:1",
            "token_issuer": ISSUER,
            "jwks_url": f"{ISSUER}/jwks",
            **more,
        },
    )


@pytest.fixture
async def dsn(make_database: Callable[[str, Path], Awaitable[str]]) -> str:
    return await make_database("places", MIGRATIONS)


@pytest.fixture
async def register(dsn: str) -> AsyncIterator[Register]:
    now = [NOW]
    settings = settings_for(dsn)
    app = create_app(settings, clock=lambda: now[0])
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _: httpx.Response(200, json=key_set()))
        ) as identity,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://places.test",
        ) as http,
    ):
        app.state.verifier = TokenVerifier(
            issuer=ISSUER, audience="places", jwks_url=f"{ISSUER}/jwks", http=identity
        )
        async with app.state.pool.acquire() as conn:
            for city in ("nantes", "bourges"):
                await store.save_city(
                    conn, store.City(city, 1, city.title(), "Europe/Paris", "active")
                )
        yield Register(app, http, settings, app.state.pool, now)
