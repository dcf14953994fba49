"""Group commit: requests that come while a batch is being written form the next one.

One commit (one fsync) then pays for many requests. A request alone does not wait for others.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from common.problems import unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_MAX = 100
WAITING_MAX = 2_000
RUNNERS_MAX = 2


class Batcher(Generic[Item, Result]):
    """Gives items in batches to `work`, which returns one result per item, in their order.

    `work` must decide each item on its own merits; when it raises, every item of the batch is given
    to it again alone, so that only the one at fault meets the error. At most BATCH_MAX items a
    batch, RUNNERS_MAX batches at a time, WAITING_MAX items waiting.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._work = work
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._running = 0
        self._runners: set[asyncio.Task[None]] = set()  # kept so that none is collected as garbage

    async def submit(self, item: Item) -> Result:
        """The result of one item. Raises Problem 503 when too many wait, or what `work` raised."""
        if len(self._waiting) >= WAITING_MAX:
            raise unavailable("Too many transfers are waiting. Try again in a moment.")
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        # A second runner only once a whole batch waits: a small batch would be two small commits.
        if self._running == 0 or (self._running < RUNNERS_MAX and len(self._waiting) >= BATCH_MAX):
            self._running += 1
            runner = asyncio.create_task(self._run())
            self._runners.add(runner)
            runner.add_done_callback(self._runners.discard)
        return await result

    async def close(self) -> None:
        """Wait for what was submitted."""
        while self._runners:
            await asyncio.wait(self._runners)

    async def _run(self) -> None:
        try:
            while self._waiting:
                size = min(BATCH_MAX, len(self._waiting))
                await self._run_batch([self._waiting.popleft() for _ in range(size)])
        finally:
            # In the same step as the last look at what waits: a task is done only later, and who
            # submits in between would wait for a runner that has already gone.
            self._running -= 1

    async def _run_batch(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            answer(batch, await self._work([item for item, _ in batch]))
        except Exception as error:
            if len(batch) == 1:
                fail(batch[0][1], error)
            else:
                await self._run_one_by_one(batch)

    async def _run_one_by_one(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        for item, result in batch:
            try:
                answer([(item, result)], await self._work([item]))
            except Exception as error:
                fail(result, error)


def answer(batch: Sequence[tuple[Item, asyncio.Future[Result]]], results: Sequence[Result]) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        if not future.done():  # its client may have gone
            future.set_result(result)


def fail(future: asyncio.Future[Result], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
