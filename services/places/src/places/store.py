"""All SQL of the service: one function per question, the connection first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from places.domain.departements import fold
from places.domain.hours import Closure, Interval
from places.domain.place import Details, Door, Place, Schedule
from places.domain.rules import Function, Rules, Zone

DETAIL_COLUMNS = tuple(field.name for field in fields(Details))
RULE_COLUMNS = tuple(field.name for field in fields(Rules))
PLACE_COLUMNS = (
    "place_id",
    "version",
    "city_id",
    "status",
    "status_reason",
    *DETAIL_COLUMNS,
    *RULE_COLUMNS,
    "open",
    "computed_at",
    "expires_at",
)
SELECT_PLACE = f"SELECT {', '.join(PLACE_COLUMNS)} FROM place"  # noqa: S608 - constant names

# Metres on a sphere (haversine), between a place and ($lat, $lon).
EARTH_RADIUS_M = 6_371_000.0
METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True, slots=True)
class City:
    city_id: str
    version: int
    name: str
    timezone: str
    status: str


@dataclass(frozen=True, slots=True)
class Reader:
    reader_id: UUID
    version: int
    city_id: str
    status: str


@dataclass(frozen=True, slots=True)
class StoredClosure:
    closure_id: UUID
    place_id: UUID
    from_date: date
    to_date: date
    reason: str

    @property
    def days(self) -> Closure:
        return Closure(self.from_date, self.to_date)


@dataclass(frozen=True, slots=True)
class Search:
    """What to list. `near` is (latitude, longitude, radius in metres); `after` is where the page
    before ended: the values of the sort order of its last place."""

    city_id: str | None = None
    status: str | None = None
    text: str = ""
    open_at: datetime | None = None
    near: tuple[float, float, float] | None = None
    after: tuple[Any, UUID] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Found:
    place: Place
    sort_key: str | float
    distance_m: float | None


# --- rows to values


def read_intervals(value: Iterable[Any]) -> tuple[Interval, ...]:
    return tuple((part.lower, part.upper) for part in value)


def write_intervals(intervals: Iterable[Interval]) -> list["asyncpg.Range[int]"]:
    return [asyncpg.Range(low, high) for low, high in intervals]


def to_place(row: Mapping[str, Any]) -> Place:
    return Place(
        place_id=row["place_id"],
        version=row["version"],
        city_id=row["city_id"],
        status=row["status"],
        status_reason=row["status_reason"],
        details=Details(**{name: row[name] for name in DETAIL_COLUMNS}),
        schedule=Schedule(
            open=read_intervals(row["open"]),
            computed_at=row["computed_at"],
            expires_at=row["expires_at"],
        ),
        rules=Rules(
            anti_passback_minutes=row["anti_passback_minutes"],
            opens_with=row["opens_with"],
            guests=row["guests"],
            zones=tuple(Zone(**zone) for zone in row["zones"]),
            functions=tuple(Function(**function) for function in row["functions"]),
        ),
    )


def to_door(row: Mapping[str, Any]) -> Door:
    return Door(
        door_id=row["door_id"],
        place_id=row["place_id"],
        name=row["name"],
        kind=row["kind"],
        min_assurance=row["min_assurance"],
        unlock_ms=row["unlock_ms"],
        publics=tuple(row["publics"]),
        opening_hours=row["opening_hours"],
        open=read_intervals(row["open"]),
        readers=tuple(row["readers"]),
        from_zone=row["from_zone"],
        to_zone=row["to_zone"],
        interlock=row["interlock"],
    )


def search_text(details: Details) -> str:
    return fold(f"{details.name} {details.commune} {details.address} {details.postcode}")


# --- places


async def get_place(conn: Conn, place_id: UUID) -> Place | None:
    row = await conn.fetchrow(f"{SELECT_PLACE} WHERE place_id = $1", place_id)
    return to_place(row) if row else None


async def lock_place(conn: Conn, place_id: UUID) -> Place | None:
    """The place, its row locked until the end of the transaction. Doors, readers and closures
    are changed only under this lock."""
    row = await conn.fetchrow(f"{SELECT_PLACE} WHERE place_id = $1 FOR UPDATE", place_id)
    return to_place(row) if row else None


async def insert_place(
    conn: Conn, place: Place, imported: Mapping[str, Any] | None, now: datetime
) -> bool:
    """False when the id, or the source's id, is taken."""
    names = (*PLACE_COLUMNS, "imported", "search", "created_at", "updated_at")
    marks = ", ".join(f"${number}" for number in range(1, len(names) + 1))
    inserted = await conn.fetchval(
        f"INSERT INTO place ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 - constant names
        " ON CONFLICT DO NOTHING RETURNING true",
        place.place_id,
        place.version,
        place.city_id,
        place.status,
        place.status_reason,
        *asdict(place.details).values(),
        *asdict(place.rules).values(),
        write_intervals(place.schedule.open),
        place.schedule.computed_at,
        place.schedule.expires_at,
        imported,
        search_text(place.details),
        now,
        now,
    )
    return inserted is True


async def update_place(conn: Conn, place: Place, now: datetime) -> None:
    """Write everything of a place whose row is locked."""
    names = (*PLACE_COLUMNS[1:], "search", "updated_at")
    sets = ", ".join(f"{name} = ${number}" for number, name in enumerate(names, start=2))
    await conn.execute(
        f"UPDATE place SET {sets} WHERE place_id = $1",  # noqa: S608 - constant names
        place.place_id,
        place.version,
        place.city_id,
        place.status,
        place.status_reason,
        *asdict(place.details).values(),
        *asdict(place.rules).values(),
        write_intervals(place.schedule.open),
        place.schedule.computed_at,
        place.schedule.expires_at,
        search_text(place.details),
        now,
    )


async def set_imported(conn: Conn, place_id: UUID, imported: Mapping[str, Any]) -> None:
    await conn.execute("UPDATE place SET imported = $2 WHERE place_id = $1", place_id, imported)


async def lock_imported(
    conn: Conn, source: str, external_ids: Sequence[str]
) -> dict[str, tuple[Place, dict[str, Any]]]:
    """The places of a source, locked in the order of their ids, with what the source last said."""
    rows = await conn.fetch(
        f"SELECT {', '.join(PLACE_COLUMNS)}, imported FROM place"  # noqa: S608 - constant names
        " WHERE source = $1 AND external_id = ANY($2::text[]) ORDER BY place_id FOR UPDATE",
        source,
        list(external_ids),
    )
    return {row["external_id"]: (to_place(row), row["imported"] or {}) for row in rows}


async def lock_short_of_hours(conn: Conn, before: datetime, limit: int) -> list[Place]:
    """Published places whose intervals end before that, locked; those locked already are left to
    whoever is at them."""
    rows = await conn.fetch(
        f"{SELECT_PLACE} WHERE status IN ('in_network', 'suspended') AND expires_at < $1"
        " ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED",
        before,
        limit,
    )
    return [to_place(row) for row in rows]


async def search_places(conn: Conn, search: Search) -> list[Found]:
    """One page in the order of names, or of distances when `near` is given."""
    values: list[Any] = []

    def mark(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    conditions = [
        f"status = {mark(search.status)}" if search.status else "status <> 'candidate'",
    ]
    if search.city_id is not None:
        conditions.append(f"city_id = {mark(search.city_id)}")
    conditions += [f"strpos(search, {mark(word)}) > 0" for word in search.text.split()]
    if search.open_at is not None:
        conditions.append(f"open @> {mark(int(search.open_at.timestamp()))}::bigint")
        conditions.append("status = 'in_network'")
    distance = "NULL::double precision"
    sort = "search"
    if search.near is not None:
        latitude, longitude, radius_m = search.near
        lat, lon = mark(latitude), mark(longitude)
        distance = (
            f"2 * {EARTH_RADIUS_M} * asin(least(1, sqrt("
            f"sin(radians(latitude - {lat}) / 2) ^ 2 + cos(radians({lat})) * cos(radians(latitude))"
            f" * sin(radians(longitude - {lon}) / 2) ^ 2)))"
        )
        margin = radius_m / METRES_PER_DEGREE
        conditions.append(
            f"latitude BETWEEN {mark(latitude - margin)} AND {mark(latitude + margin)}"
        )
        conditions.append(f"{distance} <= {mark(radius_m)}")
        sort = distance
    if search.after is not None:
        key, place_id = search.after
        conditions.append(f"({sort}, place_id) > ({mark(key)}, {mark(place_id)})")
    rows = await conn.fetch(
        f"SELECT {', '.join(PLACE_COLUMNS)}, {sort} AS sort_key, {distance} AS distance_m"  # noqa: S608 - constant names, values are bound
        f" FROM place WHERE {' AND '.join(conditions)}"
        f" ORDER BY {sort}, place_id LIMIT {mark(search.limit)}",
        *values,
    )
    return [
        Found(place=to_place(row), sort_key=row["sort_key"], distance_m=row["distance_m"])
        for row in rows
    ]


async def places_of_source(conn: Conn, source: str | None, city_id: str | None) -> list[Place]:
    """For an export, in the order of ids; None: of every source, of every city."""
    rows = await conn.fetch(
        f"{SELECT_PLACE} WHERE ($1::text IS NULL OR source = $1)"
        " AND ($2::text IS NULL OR city_id = $2) ORDER BY place_id",
        source,
        city_id,
    )
    return [to_place(row) for row in rows]


# --- doors and readers


SELECT_DOOR = (
    "SELECT d.*, ARRAY(SELECT r.reader_id FROM door_reader r WHERE r.door_id = d.door_id"
    " ORDER BY r.reader_id) AS readers FROM door d"
)


async def doors_of(conn: Conn, place_ids: Sequence[UUID]) -> dict[UUID, list[Door]]:
    """The doors of several places, by place, in the order of their ids."""
    rows = await conn.fetch(
        f"{SELECT_DOOR} WHERE d.place_id = ANY($1::uuid[]) ORDER BY d.door_id", list(place_ids)
    )
    found: dict[UUID, list[Door]] = {place_id: [] for place_id in place_ids}
    for row in rows:
        found[row["place_id"]].append(to_door(row))
    return found


async def get_door(conn: Conn, door_id: UUID) -> Door | None:
    row = await conn.fetchrow(f"{SELECT_DOOR} WHERE d.door_id = $1", door_id)
    return to_door(row) if row else None


async def insert_door(conn: Conn, door: Door) -> bool:
    """False when the id is taken."""
    inserted = await conn.fetchval(
        "INSERT INTO door (door_id, place_id, name, kind, min_assurance, unlock_ms, publics,"
        " opening_hours, open, from_zone, to_zone, interlock)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
        " ON CONFLICT DO NOTHING RETURNING true",
        door.door_id,
        door.place_id,
        door.name,
        door.kind,
        door.min_assurance,
        door.unlock_ms,
        list(door.publics),
        door.opening_hours,
        write_intervals(door.open),
        door.from_zone,
        door.to_zone,
        door.interlock,
    )
    return inserted is True


async def update_door(conn: Conn, door: Door) -> None:
    await conn.execute(
        "UPDATE door SET name = $2, kind = $3, min_assurance = $4, unlock_ms = $5, publics = $6,"
        " opening_hours = $7, open = $8, from_zone = $9, to_zone = $10, interlock = $11"
        " WHERE door_id = $1",
        door.door_id,
        door.name,
        door.kind,
        door.min_assurance,
        door.unlock_ms,
        list(door.publics),
        door.opening_hours,
        write_intervals(door.open),
        door.from_zone,
        door.to_zone,
        door.interlock,
    )


async def put_reader_on_door(conn: Conn, reader_id: UUID, door_id: UUID) -> UUID:
    """The door that the reader is on: this one, or another where it already was."""
    await conn.execute(
        "INSERT INTO door_reader (reader_id, door_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        reader_id,
        door_id,
    )
    found: UUID = await conn.fetchval(
        "SELECT door_id FROM door_reader WHERE reader_id = $1", reader_id
    )
    return found


async def take_reader_off_door(conn: Conn, reader_id: UUID, door_id: UUID) -> bool:
    """False when it was not on that door."""
    removed = await conn.fetchval(
        "DELETE FROM door_reader WHERE reader_id = $1 AND door_id = $2 RETURNING true",
        reader_id,
        door_id,
    )
    return removed is True


# --- closures


async def closures_of(conn: Conn, place_ids: Sequence[UUID]) -> dict[UUID, list[StoredClosure]]:
    """The closures of several places, by place, in the order of their first days."""
    rows = await conn.fetch(
        "SELECT closure_id, place_id, from_date, to_date, reason FROM closure"
        " WHERE place_id = ANY($1::uuid[]) ORDER BY from_date, closure_id",
        list(place_ids),
    )
    found: dict[UUID, list[StoredClosure]] = {place_id: [] for place_id in place_ids}
    for row in rows:
        found[row["place_id"]].append(StoredClosure(**dict(row)))
    return found


async def get_closure(conn: Conn, closure_id: UUID) -> StoredClosure | None:
    row = await conn.fetchrow(
        "SELECT closure_id, place_id, from_date, to_date, reason FROM closure"
        " WHERE closure_id = $1",
        closure_id,
    )
    return StoredClosure(**dict(row)) if row else None


async def insert_closure(conn: Conn, closure: StoredClosure, now: datetime) -> bool:
    """False when the id is taken."""
    inserted = await conn.fetchval(
        "INSERT INTO closure (closure_id, place_id, from_date, to_date, reason, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING true",
        closure.closure_id,
        closure.place_id,
        closure.from_date,
        closure.to_date,
        closure.reason,
        now,
    )
    return inserted is True


async def delete_closure(conn: Conn, closure_id: UUID) -> None:
    await conn.execute("DELETE FROM closure WHERE closure_id = $1", closure_id)


# --- what identity told us


async def get_city(conn: Conn, city_id: str) -> City | None:
    row = await conn.fetchrow(
        "SELECT city_id, version, name, timezone, status FROM city WHERE city_id = $1", city_id
    )
    return City(**dict(row)) if row else None


async def active_cities(conn: Conn) -> list[City]:
    rows = await conn.fetch(
        "SELECT city_id, version, name, timezone, status FROM city WHERE status = 'active'"
    )
    return [City(**dict(row)) for row in rows]


async def save_city(conn: Conn, city: City) -> None:
    """An older version than the stored one changes nothing."""
    await conn.execute(
        "INSERT INTO city (city_id, version, name, timezone, status) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (city_id) DO UPDATE SET version = EXCLUDED.version, name = EXCLUDED.name,"
        " timezone = EXCLUDED.timezone, status = EXCLUDED.status"
        " WHERE city.version < EXCLUDED.version",
        city.city_id,
        city.version,
        city.name,
        city.timezone,
        city.status,
    )


async def get_reader(conn: Conn, reader_id: UUID) -> Reader | None:
    row = await conn.fetchrow(
        "SELECT reader_id, version, city_id, status FROM reader WHERE reader_id = $1", reader_id
    )
    return Reader(**dict(row)) if row else None


async def save_reader(conn: Conn, reader: Reader) -> None:
    """An older version than the stored one changes nothing."""
    await conn.execute(
        "INSERT INTO reader (reader_id, version, city_id, status) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (reader_id) DO UPDATE SET version = EXCLUDED.version,"
        " city_id = EXCLUDED.city_id, status = EXCLUDED.status"
        " WHERE reader.version < EXCLUDED.version",
        reader.reader_id,
        reader.version,
        reader.city_id,
        reader.status,
    )
