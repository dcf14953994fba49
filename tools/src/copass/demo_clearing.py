"""The part of the story that happens between cities: minutes that cross, a limit, a way back."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from copass.demo_api import ApiError
from copass.demo_life import Life
from copass.demo_state import steward_of
from copass.demo_story import Failed, Step
from copass.seed_clearing import LIMIT_MINUTES, pairs_of

if TYPE_CHECKING:
    from copass.demo import Story

MINUTES = 30
SETTLED_WITHIN_S = 30.0


class Clearing(Life):
    """Ada, of one city, and a member of the next one around the ring."""

    def __init__(self, story: Story) -> None:
        super().__init__(story)
        self.here = self.ada.city_id
        (self.there,) = [b for a, b in pairs_of(story.network) if a == self.here]
        self.friend = next(
            member
            for member in story.network.members
            if member.city_id == self.there and "resident" in member.roles
        )

    async def send(self, minutes: int) -> dict[str, Any]:
        account = await self.story.account(str(self.ada.member_id))
        return await self.post(
            "clearing/transfers",
            self.ada,
            {
                "from_account": account["account_id"],
                "to": {"city_id": self.there, "member_id": str(self.friend.member_id)},
                "minutes": minutes,
            },
        )

    async def until_settled(self, transfer_id: str) -> None:
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while True:
            seen = await self.get(f"clearing/transfers/{transfer_id}", self.ada)
            if seen["state"] == "settled":
                return
            if seen["state"] != "sent" or time.monotonic() > deadline:
                raise Failed(f"{seen['state']} ({seen['reason']}) ≠ settled")
            await asyncio.sleep(0.005)

    async def position(self) -> int:
        found = await self.get("clearing/positions", steward_of(self.here), city_id=self.here)
        (mine,) = [one for one in found["items"] if one["peer_city_id"] == self.there]
        return int(mine["clearing_minutes"] + mine["in_transit_minutes"])

    async def take_back(self, transfer_id: str) -> None:
        """Both cities' stewards agree, and the minutes come home."""
        before = await self.position()
        for city in (self.here, self.there):
            await self.post(f"clearing/transfers/{transfer_id}/reversal", steward_of(city))
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while await self.position() != before - MINUTES:
            if time.monotonic() > deadline:
                raise Failed("what both cities agreed to take back has not come back")
            await asyncio.sleep(0.02)


async def crosses(story: Story) -> str:
    clearing = Clearing(story)
    started = time.perf_counter()
    sent = await clearing.send(MINUTES)
    await clearing.until_settled(sent["transfer_id"])
    milliseconds = round((time.perf_counter() - started) * 1000)
    position = await clearing.position()
    await clearing.take_back(sent["transfer_id"])
    return story.say(
        f"{MINUTES} minutes de {clearing.here} à {clearing.there}, réglées des deux côtés en"
        f" {milliseconds} ms (position {position:+d}) ; puis reprises, d’accord des deux cités",
        f"{MINUTES} minutes from {clearing.here} to {clearing.there}, settled on both sides in"
        f" {milliseconds} ms (position {position:+d}); then taken back, as both cities agreed",
    )


async def limit(story: Story) -> str:
    clearing = Clearing(story)
    try:
        await clearing.send(LIMIT_MINUTES * 2)
    except ApiError as error:
        if error.code != "limit_reached":
            raise Failed(f"{error.code} ≠ limit_reached") from error
    else:
        raise Failed("minutes beyond the limit were sent")
    return story.say(
        f"{LIMIT_MINUTES * 2} minutes d’un coup : refusées, la limite entre les deux cités est de"
        f" {LIMIT_MINUTES}",
        f"{LIMIT_MINUTES * 2} minutes at once: refused, the two cities agreed on {LIMIT_MINUTES}",
    )


CLEARING_STEPS = (
    Step(
        {"fr": "Des minutes passent d’une cité à l’autre", "en": "Minutes cross between cities"},
        crosses,
    ),
    Step({"fr": "Une limite entre cités", "en": "A limit between cities"}, limit),
)
