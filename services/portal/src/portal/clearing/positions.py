"""For auditors and federation admins: where all cities stand with each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from portal.clearing import calls
from portal.clearing.calls import Position, Use
from portal.forms import Form
from portal.network import Refused
from portal.visit import CurrentVisit, city_name

router = APIRouter()

# Beyond these, a page that nobody can read: one chooses a city.
PAIRS_MAX = 100
MATRIX_MAX = 12


@dataclass(frozen=True, slots=True)
class Pair:
    """One city's books about another. `hours_waiting`: since when the oldest transfer has no
    answer; `differs`: the two books disagree by more than what is under way explains."""

    position: Position
    hours_waiting: int | None
    differs: bool

    @property
    def needs_a_look(self) -> bool:
        return bool(self.position.overdue) or self.differs or any(u.soft for _, u in self.uses)

    @property
    def uses(self) -> list[tuple[str, Use]]:
        """How much of each limit is used: the key of its text, and the bar."""
        at = self.position
        if at.limit_out_minutes is None or at.limit_in_minutes is None:
            return []
        out_use = Use(at.out_minutes, at.limit_out_minutes, False)
        in_use = Use(at.in_minutes, at.limit_in_minutes, False)
        # The service warns of the pair: it means the limit of which more is used.
        most = max((use for use in (out_use, in_use) if use.minutes), key=percent, default=None)
        return [
            (key, replace(use, soft=at.soft and use is most))
            for key, use in (("agreement.used_out", out_use), ("agreement.used_in", in_use))
        ]


def percent(use: Use) -> int:
    return use.percent


def differs(ours: Position, theirs: Position | None) -> bool:
    """Whether two books disagree. At rest they sum to nothing; what the other city has taken in and
    ours has not heard of yet makes the sum negative, by no more than is under way."""
    if theirs is None:
        return False
    under_way = ours.in_transit_minutes + theirs.in_transit_minutes
    return not -under_way <= ours.clearing_minutes + theirs.clearing_minutes <= 0


@router.get("/cities/positions")
async def all_positions(
    visit: CurrentVisit, city: Annotated[str, Query(max_length=40)] = ""
) -> Response:
    """All pairs, those that need a look first; with `city`, those of one city."""
    member = visit.member()
    if not member.has("auditor", "federation_admin"):
        raise Refused("timebank", 403, "forbidden", "not an auditor")
    positions = await calls.positions(visit.network, member.access_token)
    cells = {(one.city_id, one.peer_city_id): one for one in positions}
    cities = sorted({one.city_id for one in positions} | {one.peer_city_id for one in positions})
    wanted = city if city in cities else ""
    pairs = [pair_of(visit, one, cells) for one in positions]
    shown = [pair for pair in pairs if wanted in ("", pair.position.city_id)]
    shown.sort(key=lambda pair: not pair.needs_a_look)
    return visit.page(
        "clearing/positions.html",
        form=Form({"city": wanted}),
        options=[("", visit.t("position.all")), *((one, city_name(one)) for one in cities)],
        cities=cities if len(cities) <= MATRIX_MAX else [],
        cells=cells,
        pairs=shown[:PAIRS_MAX],
        left=max(0, len(shown) - PAIRS_MAX),
        looks=sum(pair.needs_a_look for pair in pairs),
    )


def pair_of(
    visit: CurrentVisit, position: Position, cells: Mapping[tuple[str, str], Position]
) -> Pair:
    since = position.oldest_sent_at
    waiting = max(0, int((visit.now - since).total_seconds()) // 3600) if since else None
    theirs = cells.get((position.peer_city_id, position.city_id))
    return Pair(position, waiting, differs(position, theirs))
