"""A time bank, and who speaks to it over HTTP with a token."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from tokens import ISSUER, token

import timebank
from common import db
from common.ids import new_id
from timebank import service
from timebank.service import CityState, MemberState
from timebank.settings import Settings

MIGRATIONS = Path(timebank.__file__).parent / "migrations"
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


@dataclass
class Caller:
    """Somebody with a token."""

    http: httpx.AsyncClient
    token: str

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(
            f"/v1/{path}", params=params, headers={"Authorization": f"Bearer {self.token}"}
        )

    async def post(
        self, path: str, body: Any = None, *, key: str | None = None, **options: Any
    ) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Idempotency-Key": key or str(new_id()),
        }
        if body is not None:
            options["json"] = body
        return await self.http.post(f"/v1/{path}", headers=headers, **options)

    async def patch(self, path: str, body: Any, *, key: str | None = None) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Idempotency-Key": key or str(new_id()),
        }
        return await self.http.patch(f"/v1/{path}", headers=headers, json=body)

    async def put(self, path: str, body: Any, *, key: str | None = None) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Idempotency-Key": key or str(new_id()),
        }
        return await self.http.put(f"/v1/{path}", headers=headers, json=body)

    async def delete(self, path: str, *, key: str | None = None) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Idempotency-Key": key or str(new_id()),
        }
        return await self.http.delete(f"/v1/{path}", headers=headers)

    async def pay(
        self,
        payer: UUID | str,
        payee: UUID | str,
        minutes: Any,
        *,
        key: str | None = None,
        **more: Any,
    ) -> httpx.Response:
        body = {"from_account": str(payer), "to_account": str(payee), "minutes": minutes, **more}
        return await self.post("transfers", body, key=key)


@dataclass
class Bank:
    """A running time bank with two cities, and the accounts in them."""

    app: FastAPI
    http: httpx.AsyncClient
    dsn: str
    pool: db.Pool
    members: dict[str, UUID] = field(default_factory=dict)
    accounts: dict[str, UUID] = field(default_factory=dict)

    def caller(self, name: str, city: str | None = "nantes", *roles: str) -> Caller:
        sub = str(self.members.get(name, name))
        return Caller(self.http, token(sub, city=city, roles=("member", *roles)))

    async def join(self, name: str, city: str) -> UUID:
        """A member joins: their account."""
        member = MemberState(new_id(), city, "active", 1)
        async with self.pool.acquire() as conn, conn.transaction():
            await service.apply_city(
                conn, CityState(city, "active", "Europe/Paris", 1), NOW, new_id
            )
            await service.apply_member(conn, member, NOW, new_id)
        self.members[name] = member.member_id
        self.accounts[name] = await self.pool.fetchval(
            "SELECT account_id FROM account WHERE owner_id = $1", member.member_id
        )
        for kind in ("commons", "solidarity_fund"):
            self.accounts[f"{city} {kind}"] = await self.pool.fetchval(
                "SELECT account_id FROM account WHERE city_id = $1 AND kind = $2", city, kind
            )
        return self.accounts[name]

    async def balance(self, name: str) -> int:
        minutes: int = await self.pool.fetchval(
            "SELECT balance_minutes FROM account WHERE account_id = $1", self.accounts[name]
        )
        return minutes

    async def transfers(self) -> int:
        count: int = await self.pool.fetchval("SELECT count(*) FROM transfer")
        return count


def settings_for(dsn: str, **more: Any) -> Settings:
    return Settings(
        database_url=dsn,
        **{
            "kafka_bootstrap": "127.0.0.1:1",
            "token_issuer": ISSUER,
            "jwks_url": f"{ISSUER}/jwks",
            **more,
        },
    )
