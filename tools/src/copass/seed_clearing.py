"""The agreements of the demo network: each city with the next, around the federation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from copass.demo_api import Api, ApiError, Unreachable
from copass.demo_data import DemoNetwork
from copass.demo_state import steward_of
from copass.seed_life import Make

LIMIT_MINUTES = 6000
HEARD_WITHIN_S = 60.0
TRY_AGAIN_S = 0.2
# The proposal, or the other city's key, is still on its way.
NOT_HEARD = frozenset({"not_found", "unknown_city", "no_key_yet"})


def pairs_of(network: DemoNetwork) -> list[tuple[str, str]]:
    """Who clears with whom: a ring, so that debts can go around and come home."""
    cities = [city.city_id for city in network.cities]
    return [*pairwise(cities), (cities[-1], cities[0])]


class ClearingSeeder:
    def __init__(
        self, api: Api, network: DemoNetwork, make: Make, advance: Callable[[str, int], None]
    ) -> None:
        self.api = api
        self.network = network
        self.make = make
        self.advance = advance

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for a, b in pairs_of(self.network):
                group.create_task(self.agreement(a, b))

    async def agreement(self, a: str, b: str) -> None:
        proposal = {
            "city_id": a,
            "peer_city_id": b,
            "limit_out_minutes": LIMIT_MINUTES,
            "limit_in_minutes": LIMIT_MINUTES,
        }
        await self.heard("/v1/agreements", proposal, f"agreement:{a}:{b}", a)
        await self.heard(f"/v1/agreements/{b}/{a}/accept", {}, f"accept:{b}:{a}", b)
        self.advance("agreements", 1)

    async def heard(self, path: str, body: dict[str, Any], name: str, city_id: str) -> None:
        """Ask until the news that it needs has come; done before is done."""
        deadline = time.monotonic() + HEARD_WITHIN_S
        while True:
            try:
                await self.make("timebank", path, body, name, login=steward_of(city_id))
            except ApiError as error:
                if error.code not in NOT_HEARD or time.monotonic() > deadline:
                    raise Unreachable(f"{name}: {error}") from error
                await asyncio.sleep(TRY_AGAIN_S)
            else:
                return
