"""The network in three numbers, counted at most every half minute, however many visitors."""

import asyncio
from dataclasses import dataclass

from common.logging import get_logger
from portal.network import Network, Refused, Unavailable
from portal.views import Place

FRESH_S = 30.0
# Older numbers are better than none while the register does not answer, but not for ever.
STALE_MAX_S = 600.0
PAGE = 200
PAGES_MAX = 50

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Overview:
    """`cities` in alphabetical order."""

    cities: tuple[str, ...]
    places: int
    open_now: int


class OverviewCache:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._counted: Overview | None = None
        self._counted_at = 0.0
        self._running: asyncio.Task[None] | None = None

    async def get(self) -> Overview | None:
        """The numbers, or None when they cannot be had."""
        loop = asyncio.get_running_loop()
        age = loop.time() - self._counted_at
        if self._counted is not None and age < FRESH_S:
            return self._counted
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._count())
        if self._counted is None:
            await asyncio.shield(self._running)
        return self._counted if age < STALE_MAX_S or self._counted_at >= loop.time() - 1 else None

    async def _count(self) -> None:
        try:
            everything = await self._all(open_now=False)
            now_open = await self._all(open_now=True)
        except (Unavailable, Refused) as error:
            log.warning("overview_failed", error=str(error))
            return
        cities = {place.city_id for place in everything if place.city_id}
        self._counted = Overview(tuple(sorted(cities)), len(everything), len(now_open))
        self._counted_at = asyncio.get_running_loop().time()

    async def _all(self, *, open_now: bool) -> list[Place]:
        """The places of the network: those with a city that are neither suspended nor closed."""
        found: list[Place] = []
        cursor = ""
        for _ in range(PAGES_MAX):
            page = await self._network.places(open_now=open_now, limit=PAGE, cursor=cursor)
            found += [p for p in page.items if p.city_id and p.status == "in_network"]
            if not page.next:
                break
            cursor = page.next
        return found

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
