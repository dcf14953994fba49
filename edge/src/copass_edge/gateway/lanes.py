"""A queue for each device, worked off in order: one that floods or waits holds up only itself."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

WAITING_MAX = 8

log = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Lanes:
    """`async with Lanes() as lanes: lanes.add(name, work)`. Names come from the configuration."""

    _queues: dict[str, asyncio.Queue[Work]] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _dropping: set[str] = field(default_factory=set)

    async def __aenter__(self) -> "Lanes":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, name: str, work: Work) -> bool:
        """Whether there was room; without, the work is dropped."""
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = asyncio.Queue(WAITING_MAX)
            self._tasks.append(asyncio.create_task(self._run(name, queue)))
        try:
            queue.put_nowait(work)
        except asyncio.QueueFull:
            if name not in self._dropping:  # told once for each flood
                log.warning("messages_dropped device=%s", name)
                self._dropping.add(name)
            return False
        return True

    async def _run(self, name: str, queue: asyncio.Queue[Work]) -> None:
        while True:
            work = await queue.get()
            if queue.empty():
                self._dropping.discard(name)
            try:
                await work()
            except Exception as error:
                log.error("message_failed device=%s", name, exc_info=error)
