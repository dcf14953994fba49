"""The life of the demo network, through the time bank's API: pledges, hours, offers and needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any, Protocol

from copass.demo_api import Api, ApiError, Login, Unreachable
from copass.demo_data import DemoNetwork, Member, demo_id
from copass.demo_life_data import CityLife, Pledge, Work, demo_life
from copass.demo_state import login_of, steward_of

KNOWN_WITHIN_S = 60.0  # until the time bank has heard of everybody
GROUP_MAX = 50


class Make(Protocol):
    """Sends one command. None when the thing is there already."""

    async def __call__(
        self,
        service: str,
        path: str,
        body: Mapping[str, Any] | None,
        name: str,
        *,
        method: str = "POST",
        login: Login = ...,
    ) -> dict[str, Any] | None: ...


class LifeSeeder:
    """One run; `advance` is told of each pledge, work and listing."""

    def __init__(
        self, api: Api, network: DemoNetwork, make: Make, advance: Callable[[str, int], None]
    ) -> None:
        self.api = api
        self.network = network
        self.make = make
        self.advance = advance
        # The day is a part of the keys: what a run of yesterday asked for is asked for anew.
        self.today: date = datetime.now(UTC).date()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for life in demo_life(self.network):
                group.create_task(self.city(life))

    async def city(self, life: CityLife) -> None:
        people = {one.member.member_id: one.member for one in life.pledges}
        people |= {one.owner.member_id: one.owner for one in life.listings}
        people |= {one.giver.member_id: one.giver for one in life.works}
        await asyncio.gather(*(self.known(member) for member in people.values()))
        await asyncio.gather(*(self.pledge(pledge) for pledge in life.pledges))
        async with asyncio.TaskGroup() as group:
            group.create_task(self.works(life))
            for listing in life.listings:
                group.create_task(self.listing(listing.key, listing.owner, listing.body()))

    async def known(self, member: Member) -> None:
        """Wait until the time bank has heard of a member."""
        deadline = time.monotonic() + KNOWN_WITHIN_S
        path = f"/v1/standings/{member.member_id}"
        while True:
            try:
                await self.api.get("timebank", path, steward_of(member.city_id))
            except ApiError as error:
                if error.status != 404 or time.monotonic() > deadline:
                    raise Unreachable(f"the time bank does not know {member.key}") from error
                await asyncio.sleep(0.1)
            else:
                return

    async def pledge(self, pledge: Pledge) -> None:
        body = {
            "pledge_id": str(demo_id("pledge", pledge.member.key)),
            "member_id": str(pledge.member.member_id),
            "minutes_per_month": pledge.minutes_per_month,
            "skills": list(pledge.skills),
            "starts_on": pledge.starts_on(self.today).isoformat(),
        }
        await self.say("/v1/pledges", body, f"pledge:{pledge.member.key}", pledge.member.city_id)
        self.advance("life", 1)

    async def works(self, life: CityLife) -> None:
        """Those of the inhabitants in groups, by the steward; the others one by one, by
        themselves. Then the animator says that they were done, or the steward for the animator's
        own."""
        for n, group in enumerate(groups([work for work in life.works if not work.own])):
            body = {
                "group_id": str(demo_id("group", f"{life.city_id}/{n}")),
                "items": [work.body(self.today) for work in group],
            }
            await self.say(
                "/v1/contributions/group", body, f"works:{life.city_id}/{n}", life.city_id
            )
        own = [work for work in life.works if work.own]
        await asyncio.gather(*(self.log(work) for work in own))
        done = [work for work in life.works if work.confirmed]
        await asyncio.gather(*(self.confirm(work, life.animator) for work in done))
        self.advance("life", len(life.works))

    async def log(self, work: Work) -> None:
        body = work.body(self.today)
        await self.say(
            "/v1/contributions", body, f"work:{work.key}", work.giver.city_id, login_of(work.giver)
        )

    async def confirm(self, work: Work, animator: Member) -> None:
        path = f"/v1/contributions/{work.contribution_id}/confirm"
        by_steward = work.giver == animator
        login = steward_of(work.giver.city_id) if by_steward else login_of(animator)
        await self.say(path, {"version": 1}, f"done:{work.key}", work.giver.city_id, login)

    async def listing(self, key: str, owner: Member, body: Mapping[str, Any]) -> None:
        await self.say("/v1/listings", body, f"listing:{key}", owner.city_id, login_of(owner))
        self.advance("life", 1)

    async def say(
        self,
        path: str,
        body: Mapping[str, Any],
        name: str,
        city_id: str,
        login: Login | None = None,
    ) -> None:
        login = login or steward_of(city_id)
        await self.make("timebank", path, body, f"{name}:{self.today}", login=login)


def groups(works: Sequence[Work]) -> Iterator[list[Work]]:
    """What one request may log together: one kind of day and activity, to the commons."""
    by_kind = sorted(works, key=lambda work: (work.days_ago, work.activity))
    for _, same in groupby(by_kind, key=lambda work: (work.days_ago, work.activity)):
        found = list(same)
        for start in range(0, len(found), GROUP_MAX):
            yield found[start : start + GROUP_MAX]
