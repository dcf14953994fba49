"""What waits for a member: asked of each part of the network at once, each free to fail."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from portal.board import calls as board
from portal.board.steps import waits_for
from portal.contributions import calls as contributions
from portal.notices import calls as notices
from portal.people import today
from portal.solidarity import calls as solidarity
from portal.visit import Visit

# Beyond this, the exact number helps nobody.
COUNTED_MAX = 50


@dataclass(frozen=True, slots=True)
class Item:
    text: Markup
    link: str


@dataclass(slots=True)
class Waiting:
    """`unknown`: a part could not be asked, so there may be more."""

    items: list[Item] = field(default_factory=list)
    unknown: bool = False


async def waiting_for(visit: Visit) -> Waiting:
    """What the member is expected to answer, the most pressing first."""
    member, network = visit.member(), visit.network
    token = member.access_token
    asked: list[tuple[str, str, Awaitable[int]]] = [
        (
            "waiting.to_confirm",
            "/time/to-confirm",
            size(contributions.to_confirm(network, token, COUNTED_MAX)),
        ),
        (
            "waiting.disputed",
            "/time/contributions?status=disputed",
            size(
                contributions.listed(
                    network, token, member_id=member.member_id, role="giver", status="disputed"
                )
            ),
        ),
    ]
    asked.append(("waiting.exchanges", "/board/exchanges", waiting_exchanges(visit)))
    asked.append(("waiting.notices", "/notices", unread(visit)))
    if member.has("mediator"):
        disputes = contributions.listed(network, token, city_id=member.city_id, status="disputed")
        asked.append(("waiting.to_rule", "/time/disputes", size(disputes)))
    if member.has("steward") and member.city_id:
        requests = solidarity.asked_in(network, token, member.city_id)
        asked.append(("waiting.help", "/time/solidarity/requests", length(requests)))
    found = await asyncio.gather(*(visit.part(count) for _, _, count in asked))
    waiting = Waiting()
    for (key, link, _), n in zip(asked, found, strict=True):
        if n is None:
            waiting.unknown = True
        elif n:
            waiting.items.append(Item(visit.t(key, n=n), link))
    return waiting


async def size(page: Awaitable[contributions.ContributionPage]) -> int:
    return len((await page).items)


async def length(items: Awaitable[Sequence[object]]) -> int:
    return len(await items)


async def waiting_exchanges(visit: Visit) -> int:
    """How many of the newest exchanges wait for the member."""
    member = visit.member()
    day = await today(visit)
    page = await board.exchanges(visit.network, member.access_token, limit=COUNTED_MAX)
    return sum(waits_for(member, exchange, day) for exchange in page.items)


async def unread(visit: Visit) -> int:
    page = await notices.listed(visit.network, visit.member().access_token, limit=1)
    return page.unread
