"""What a streamed answer holds is let go, whatever becomes of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.streaming import HoldingResponse

SCOPE = {"type": "http", "path": "/live", "asgi": {"spec_version": "2.3"}}
NEW_SCOPE = {**SCOPE, "asgi": {"spec_version": "2.4"}}


async def answer(scope: dict[str, Any], send: Any, *, gone: bool = False) -> list[str]:
    """What was told, and `let go` for each time that it was."""
    happened: list[str] = []

    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            happened.append(str(number))
            yield b"x"

    async def let_go() -> None:
        happened.append("let go")

    async def receive() -> dict[str, Any]:
        if not gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    response = HoldingResponse(
        parts(), let_go=let_go, seconds_max=0.05, media_type="text/event-stream"
    )
    try:
        await response(scope, receive, send)
    except Exception as error:  # which one is the framework's affair
        happened.append(type(error).__name__)
    return happened


async def take(_: Any) -> None:
    return None


async def take_nothing(_: Any) -> None:
    await asyncio.Event().wait()


async def refuse(_: Any) -> None:
    raise OSError


@pytest.mark.parametrize("scope", [SCOPE, NEW_SCOPE])
async def test_what_is_held_is_let_go_once(scope: dict[str, Any]) -> None:
    assert await answer(scope, take) == ["0", "1", "2", "let go"]
    # Gone, or stuck, before the first bit: nothing was ever begun.
    assert (await answer(scope, refuse))[0] == "let go"
    assert await answer(scope, take_nothing) == ["let go"]


async def test_who_is_gone_before_the_first_bit_leaves_nothing_behind() -> None:
    assert await answer(SCOPE, take_nothing, gone=True) == ["let go"]
