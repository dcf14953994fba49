"""Whoever asks for a city whose book moves, or has moved, is told so: nothing is written here, and
what is shown of it is not what it is there."""

import asyncio

import asyncpg
from fastapi import Request, Response

from common.db import Pool
from common.logging import get_logger
from common.problems import Problem
from timebank.cities import store
from timebank.settings import Settings

# How long a city that has just moved may still be read here.
LOOK_EVERY_S = 2.0

log = get_logger(__name__)


def away_problem(place: str | None) -> Problem:
    """What somebody of a city is told whose book is not written here."""
    if place == "moving":
        return Problem(
            503,
            "city_moving",
            "The city's book is being moved to another time bank. Try again in some minutes.",
            headers={"Retry-After": "30"},
        )
    return Problem(
        421,
        "city_moved",
        "The city's book has moved to another time bank. This one answers for it no more.",
    )


def problem_of(error: asyncpg.PostgresError) -> Problem | None:
    """The problem behind what the database refused; None when it refused something else."""
    if getattr(error, "constraint_name", None) != "city_is_here":
        return None
    return away_problem(getattr(error, "detail", None))


async def on_away(_request: Request, error: Exception) -> Response:
    """The answer to a write into a book that is not here."""
    problem = problem_of(error) if isinstance(error, asyncpg.PostgresError) else None
    if problem is None:
        raise error
    return problem.response()


class Away:
    """Which cities have moved, looked up every LOOK_EVERY_S seconds at most."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._moved: frozenset[str] = frozenset()
        self._until = 0.0
        self._looking = asyncio.Lock()

    async def check(self, city_id: str | None) -> None:
        """Raises Problem 421 for somebody whose city's book has moved."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._until and not self._looking.locked():
            async with self._looking:
                self._moved = await store.moved_cities(self._pool)
                self._until = loop.time() + LOOK_EVERY_S
        if city_id in self._moved:
            raise away_problem("moved")


async def look_around(pool: Pool, settings: Settings) -> None:
    """As a process starts: say where the settings and the books do not agree. Stops nothing."""
    async with pool.acquire() as conn:
        for city_id, place in (await store.places_of(conn)).items():
            if place in ("moving", "moved") and settings.serves(city_id):
                log.error(
                    "city_not_here",
                    city=city_id,
                    place=place,
                    hint="its book moves, or has moved, to another time bank: it is not served"
                    " here. Take it out of TIMEBANK_CITIES.",
                )
            elif place == "here" and not settings.serves(city_id):
                log.warning(
                    "city_here_but_not_served",
                    city=city_id,
                    hint="its book is here: add it to TIMEBANK_CITIES, or its members are not"
                    " heard of.",
                )
        for city_id in await store.keyed_elsewhere(conn):
            log.error(
                "city_has_a_key_elsewhere",
                city=city_id,
                hint="another time bank keeps its book: this one makes no second key. To move it,"
                " import its package into a database that never opened its book.",
            )
