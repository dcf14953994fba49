"""A reader that never finishes its sentence is sent away, and holds nothing up."""

import asyncio
from typing import Any, cast

import pytest

from access import endpoint
from access.credentials import CredentialReader
from access.endpoint import TapsFirst
from access.redis_pipe import RedisPipe
from common.clock import utc_now
from common.db import Pool


async def test_a_body_that_never_ends_is_answered_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BODY_SECONDS_MAX", 0.05)
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        if not messages:
            await asyncio.sleep(3600)
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    async def nothing_behind(*_: Any) -> None:
        raise AssertionError("not a tap")

    app = TapsFirst(
        nothing_behind,
        live_of=lambda _: cast("tuple[RedisPipe, Pool]", None),
        reader=CredentialReader(b"p" * 32),
        clock=utc_now,
        is_traced=False,
    )
    key = b"Bearer 0192a5c0-0000-7000-8000-000000000000." + b"s" * 43
    headers = [(b"authorization", key), (b"content-type", b"application/json")]
    scope = {"type": "http", "path": "/v1/taps", "method": "POST", "headers": headers}
    async with asyncio.timeout(5):
        await app(scope, receive, send)
    assert sent[0]["status"] == 408
    assert b"body_too_slow" in sent[1]["body"]
