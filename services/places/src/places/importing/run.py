"""Writing the places of a file, in batches that a kill at any moment leaves whole.

A batch is one transaction: its places, with the events that tell of them, are there or not. The
same file again finds each place by its source and its identifier there, and changes nothing where
the source says nothing new; so an import that was cut off is completed by running it again.

What the source last said is kept beside the place. When it says something else, only that is taken
over: what was changed here in the meantime stays, unless the source changed the very same thing.
A place that a file no longer has stays as it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from common.clock import Clock
from common.db import Conn, Pool
from common.ids import new_id
from places import service, store
from places.domain.departements import departements, slug
from places.domain.place import CANDIDATE, IN_NETWORK, Details, Place, changed_fields

BATCH = 200
# One import of a source at a time: its second would only wait for the rows of the first.
IMPORT_LOCK = 7_204

Assign = Callable[[Details], str | None]


class AlreadyRunning(Exception):
    """Another import of the same source is at work."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Places by what happened to them."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0

    def plus(self, outcome: str) -> "Counts":
        return replace(self, **{outcome: getattr(self, outcome) + 1})


def to_no_city(_details: Details) -> None:
    return None


def to_city(city_id: str) -> Assign:
    return lambda _details: city_id


def by_commune(cities: Iterable[str]) -> Assign:
    """To the city that is named as the commune: `Saint-Étienne` → `saint-etienne`. Those of the
    same name elsewhere go there too; use it where names are not shared."""
    known = frozenset(cities)

    def assign(details: Details) -> str | None:
        name = slug(details.commune)
        return name if name in known else None

    return assign


def by_departement(cities: Iterable[str]) -> Assign:
    """To the city that is named as the main town of the place's département."""
    known = frozenset(cities)
    by_code = {code: slug(each.main_town) for code, each in departements().items()}

    def assign(details: Details) -> str | None:
        name = by_code.get(details.departement or "")
        return name if name in known else None

    return assign


async def import_places(
    pool: Pool,
    source: str,
    places: Sequence[Details],
    assign: Assign,
    clock: Clock,
    advance: Callable[[int], None],
) -> Counts:
    """Write the places; `advance` hears of each batch when it is safely stored.

    Raises AlreadyRunning, and whatever the database raises: what was stored stays.
    """
    counts = Counts()
    async with pool.acquire() as holder:
        locked = await holder.fetchval(
            "SELECT pg_try_advisory_lock($1, hashtext($2))", IMPORT_LOCK, source
        )
        if not locked:
            raise AlreadyRunning(source)
        try:
            for start in range(0, len(places), BATCH):
                batch = places[start : start + BATCH]
                async with pool.acquire() as conn, conn.transaction():
                    outcomes = await import_batch(conn, source, batch, assign, clock)
                for outcome in outcomes:
                    counts = counts.plus(outcome)
                advance(len(batch))
        finally:
            await holder.execute("SELECT pg_advisory_unlock($1, hashtext($2))", IMPORT_LOCK, source)
    return counts


async def import_batch(
    conn: Conn, source: str, batch: Sequence[Details], assign: Assign, clock: Clock
) -> list[str]:
    known = await store.lock_imported(conn, source, [identifier(each) for each in batch])
    outcomes = []
    for details in batch:
        existing = known.get(identifier(details))
        if existing is None and await create(conn, details, assign(details), clock):
            outcomes.append("created")
            continue
        if existing is None:
            # Somebody added it by hand since the lock.
            existing = (await store.lock_imported(conn, source, [identifier(details)]))[
                identifier(details)
            ]
        place, imported = existing
        changed = await update(conn, place, imported, details, assign(details), clock)
        outcomes.append("updated" if changed else "unchanged")
    return outcomes


def identifier(details: Details) -> str:
    if details.external_id is None:
        raise ValueError("a place of an import has an identifier")
    return details.external_id


async def create(conn: Conn, details: Details, city_id: str | None, clock: Clock) -> bool:
    now = clock()
    place = Place(
        place_id=new_id(),
        version=1,
        city_id=city_id,
        status=CANDIDATE if city_id is None else IN_NETWORK,
        status_reason="",
        details=details,
        schedule=service.compile_schedule(details, [], now),
    )
    if not await store.insert_place(conn, place, asdict(details), now):
        return False
    await service.tell(conn, place, [], now)
    return True


async def update(
    conn: Conn,
    place: Place,
    imported: Mapping[str, Any],
    details: Details,
    city_id: str | None,
    clock: Clock,
) -> bool:
    """Take over what the source says anew. False when nothing of the place changed."""
    now = clock()
    said = asdict(details)
    news = changed_fields(imported, said)
    if news.keys() & {"latitude", "longitude"}:
        news |= {"latitude": details.latitude, "longitude": details.longitude}
    if news:
        await store.set_imported(conn, place.place_id, said)
    wanted = replace(place, details=replace(place.details, **news))
    if place.status == CANDIDATE and city_id is not None:
        wanted = replace(wanted, city_id=city_id, status=IN_NETWORK)
    if wanted == place:
        return False
    await service.save(conn, wanted, now)
    return True
