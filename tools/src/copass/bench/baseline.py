"""The handler that a user would write: FastAPI, a pydantic body, one `await redis.get`.

It answers the same request as the access service does, and decides nothing: this is the cost of
the framework and of one trip to Redis, which the full decision is measured against.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal
from uuid import UUID

from fastapi import FastAPI, Request
from pydantic import BaseModel
from redis.asyncio import Redis


class Credential(BaseModel):
    type: Literal["uid", "ntag424", "pass"]
    uid: str


class Tap(BaseModel):
    tap_id: UUID
    door_id: UUID
    credential: Credential
    direction: Literal["in", "out"]
    occurred_at: datetime
    mode: Literal["live", "replay"]


def create_app() -> FastAPI:
    """For `uvicorn --factory`; the Redis address is in BENCH_REDIS_URL."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])
        yield
        await app.state.redis.aclose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/taps")
    async def tap(body: Tap, request: Request) -> dict[str, str]:
        card = await request.app.state.redis.get(f"bench:card:{body.credential.uid}")
        return {"decision": "grant" if card else "deny"}

    return app
