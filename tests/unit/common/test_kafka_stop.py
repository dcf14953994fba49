"""A client that does not stop is left behind, whatever it does with a cancellation."""

import asyncio
from typing import Any

import pytest

from common import kafka


class Stubborn:
    """Takes every cancellation for that of something else, as aiokafka's consumer does."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.let_go = asyncio.Event()

    async def stop(self) -> None:
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1


async def test_a_client_that_swallows_its_cancellation_does_not_keep_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kafka, "STOP_TIMEOUT_S", 0.01)
    client: Any = Stubborn()
    async with asyncio.timeout(5):
        await kafka.stop(client)
    await asyncio.sleep(0)
    assert client.cancelled == 1
    client.let_go.set()
    await asyncio.sleep(0)


async def test_what_a_client_meets_while_it_stops_is_not_the_callers() -> None:
    class Failing:
        async def stop(self) -> None:
            raise OSError("the broker is away")

    client: Any = Failing()
    await kafka.stop(client)
