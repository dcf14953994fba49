"""Group commit: who comes together is written together, and nobody suffers for a neighbour."""

import asyncio
from collections.abc import Sequence

import pytest

from common.problems import Problem
from timebank import batcher
from timebank.batcher import Batcher


class Work:
    """Doubles numbers; refuses a batch with a negative one; waits while `gate` is closed."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await self.gate.wait()
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [item * 2 for item in items]


async def test_requests_that_come_meanwhile_form_the_next_batch() -> None:
    work = Work()
    work.gate.clear()
    together: Batcher[int, int] = Batcher(work)
    first = asyncio.create_task(together.submit(1))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(together.submit(n)) for n in (2, 3, 4)]
    await asyncio.sleep(0.01)
    work.gate.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6, 8]
    assert work.batches == [[1], [2, 3, 4]]


async def test_nobody_is_forgotten_between_two_batches() -> None:
    """Clients that ask again as soon as they are answered meet the runner as it ends."""
    together: Batcher[int, int] = Batcher(Work())

    async def client() -> None:
        for n in range(100):
            assert await together.submit(n) == n * 2

    async with asyncio.timeout(10):
        await asyncio.gather(*(client() for _ in range(8)))


async def test_only_the_one_at_fault_meets_the_error() -> None:
    together: Batcher[int, int] = Batcher(Work())
    results = await asyncio.gather(
        *(together.submit(n) for n in (1, -2, 3)), return_exceptions=True
    )
    assert results[0] == 2
    assert isinstance(results[1], ValueError)
    assert results[2] == 6


async def test_a_client_that_left_does_not_stop_the_others() -> None:
    work = Work()
    work.gate.clear()
    together: Batcher[int, int] = Batcher(work)
    leaving, staying = (asyncio.create_task(together.submit(n)) for n in (1, 2))
    await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.sleep(0.01)
    work.gate.set()
    assert await staying == 4
    await together.close()


async def test_too_many_waiting_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "WAITING_MAX", 2)
    work = Work()
    work.gate.clear()
    together: Batcher[int, int] = Batcher(work)
    tasks = [asyncio.create_task(together.submit(1))]
    await asyncio.sleep(0.01)
    tasks += [asyncio.create_task(together.submit(n)) for n in (2, 3)]
    await asyncio.sleep(0.01)
    with pytest.raises(Problem) as refused:
        await together.submit(4)
    assert refused.value.status == 503
    work.gate.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]
