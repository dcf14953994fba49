"""A city arrives from another time bank: all of its package, checked, in one transaction, or
nothing.

What is looked at before the city is opened: that the city signed the package, and nothing in it was
changed since; that nobody else has a later checkpoint or key of it (it would live on elsewhere);
every constraint of the books; every balance against its postings; every entry of the log, the root
over them, and the last checkpoint. Done again with the same package, it does nothing.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Literal

import asyncpg

from common import db
from common.db import Conn
from common.logging import get_logger
from copass_verify.checkpoints import WrongCheckpoint, parse_checkpoint
from copass_verify.merkle import Frontier, hash_leaf
from copass_verify.notes import WrongNote, open_note, to_verifier
from timebank.cities import store
from timebank.cities.package import Manifest, Package, Part, WrongPackage, unseal_key
from timebank.cities.tables import MERGED, Table, UnknownTable
from timebank.clearing import keys_store
from timebank.clearing.keys import Vault
from timebank.log import halting
from timebank.log import store as log_store
from timebank.log.domain import origin_of
from timebank.log.store import LEVEL_KEPT
from timebank.standings import store as standings_store
from timebank.verify import reports_of

AT_ONCE = 5000

log = get_logger(__name__)

# Called with what is being done and how many rows of it are.
Progress = Callable[[str, int], None]
Arrived = Literal["imported", "here before"]


class CannotArrive(Exception):
    """The package is not taken in, and nothing was changed; the message says why."""


async def arrive(
    dsn: str,
    vault: Vault,
    package: Package,
    secret: str,
    heard: Sequence[str],
    *,
    now: datetime,
    progress: Progress,
) -> Arrived:
    """Take a city in. `heard`: checkpoints of its log that the topics tell of, as notes.

    Raises CannotArrive, WrongPackage.
    """
    manifest = package.manifest
    key = unseal_key(manifest, secret)
    connection = await db.connect(dsn, name="timebank-import")
    try:
        async with connection.transaction():
            if await is_here(connection, package):
                return "here before"
            tables = await check_schema(connection, manifest)
            await check_keys(connection, manifest)
            for city_id in manifest.cities_named:
                await store.add_stub(connection, city_id, now)
            for part in sorted(manifest.parts, key=lambda part: list(tables).index(part.name)):
                await take_in(connection, package, part, tables[part.name])
                progress(part.name, part.rows)
            since = datetime.fromisoformat(str(manifest.key["since"]))
            await store.add_key(
                connection,
                manifest.city,
                len(manifest.chain.keys),
                manifest.chain.newest,
                vault.seal(key, manifest.city),
                since,
            )
            await settle(connection)
            await check_log(connection, manifest, progress)
            await check_known(connection, manifest, heard)
            await check_books(connection, manifest.city)
            await standings_store.expect_all_of(connection, manifest.city, now)
            await store.add_step(
                connection,
                manifest.city,
                "imported",
                now,
                package_id=manifest.package_id,
                sha256=package.sha256,
                log_size=manifest.log_size,
            )
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        raise CannotArrive(f"the database refuses it: {error}") from error
    finally:
        await connection.close(timeout=5)
    log.warning("city_imported", city=manifest.city, package=str(manifest.package_id))
    return "imported"


async def is_here(conn: Conn, package: Package) -> bool:
    """Whether this very package was taken in before. Raises CannotArrive when the city is here
    otherwise."""
    city_id = package.manifest.city
    place = await store.lock_place(conn, city_id)
    if place is None or place == "elsewhere":
        return False
    if place == "here" and await store.was_imported(conn, city_id, package.sha256):
        return True
    if place == "here":
        raise CannotArrive(
            f"{city_id} has a book here that did not come from this package. If its worker opened"
            " an empty one because TIMEBANK_CITIES named it too early, begin with a fresh database."
        )
    raise CannotArrive(
        f"{city_id} has left this database, which still holds what it was then. Import it into"
        " another one."
    )


async def check_schema(conn: Conn, manifest: Manifest) -> dict[str, Table]:
    """The tables by name, in the order in which they are filled. Raises CannotArrive when they are
    not those of the package."""
    here, there = set(await store.migrations(conn)), set(manifest.migrations)
    if here != there:
        differ = ", ".join(sorted(here ^ there))
        raise CannotArrive(f"both time banks must be of one version first: {differ}")
    try:
        tables = {table.name: table for table in await store.list_tables(conn)}
    except UnknownTable as error:
        raise CannotArrive(str(error)) from error
    told = {part.name: part.columns for part in manifest.parts}
    if told != {table.name: table.columns for table in tables.values()}:
        raise CannotArrive("the tables of the package are not those of this database")
    return tables


async def check_keys(conn: Conn, manifest: Manifest) -> None:
    """Raises CannotArrive when others know another key of the city, or a later one."""
    told = await keys_store.peer_chain(conn, manifest.city)
    if told is not None and not manifest.chain.goes_on_from(told):
        raise CannotArrive(
            f"others know another key of {manifest.city} than this package: it is an old one, or"
            " not the city's"
        )


async def take_in(conn: db.Connection, package: Package, part: Part, table: Table) -> None:
    """Copy a table's rows. Raises WrongPackage when they are not those of the manifest."""
    to = table.name
    if table.name in MERGED:
        to = "arriving"
        await conn.execute("DROP TABLE IF EXISTS arriving")
        await conn.execute(
            f"CREATE TEMPORARY TABLE arriving ON COMMIT DROP AS {table.select} LIMIT 0"
        )
        await conn.execute("ALTER TABLE arriving ADD COLUMN arriving_number bigserial")
    status = await conn.copy_to_table(
        to,
        source=rows_of(package, part),
        columns=list(table.columns),
        format="csv",
        header=True,
    )
    if int(status.split()[-1]) != part.rows:
        raise WrongPackage(f"{part.name} has {status.split()[-1]} rows, and not {part.rows}")
    if table.name in MERGED:
        if table.name == "book":
            # As it is from now on, if all goes well.
            await conn.execute("UPDATE arriving SET place = 'here'")
        await conn.execute(
            f'INSERT INTO "{table.name}" ({table.names}) SELECT {table.names} FROM arriving'  # noqa: S608 - names of the catalogue
            f" ORDER BY arriving_number ON CONFLICT {MERGED[table.name]}"
        )


async def rows_of(package: Package, part: Part) -> AsyncIterator[bytes]:
    async for data in package.table(part):
        yield data


async def settle(conn: Conn) -> None:
    """Let all that is checked at the end of a transaction be checked now, to be told apart."""
    await conn.execute("SET CONSTRAINTS ALL IMMEDIATE")


# ── What is checked before the city is opened ───────────────────────────────────────────────────


async def check_log(conn: Conn, manifest: Manifest, progress: Progress) -> None:
    """Every entry, the nodes over them, the root, and the last checkpoint with its key.

    Raises WrongPackage.
    """
    city_id = manifest.city
    frontier = Frontier()
    last = await log_store.last_checkpoint(conn, city_id)
    signed_root: bytes | None = None
    for begin in range(0, manifest.log_size, AT_ONCE):
        entries = await log_store.list_entries(
            conn, city_id, begin, min(begin + AT_ONCE, manifest.log_size)
        )
        wanted: dict[tuple[int, int], bytes] = {}
        for entry in entries:
            if entry.index != frontier.size or hash_leaf(entry.entry) != entry.leaf_hash:
                raise WrongPackage(f"entry {frontier.size} of its log is missing or was changed")
            for level, index, node in frontier.append(entry.leaf_hash):
                if level >= LEVEL_KEPT:
                    wanted[level, index] = node
            if last is not None and frontier.size == last.size:
                signed_root = frontier.root()
        if await log_store.node_hashes(conn, city_id, list(wanted)) != wanted:
            raise WrongPackage("the nodes of its log are not those over its entries")
        progress("log", len(entries))
    head = await log_store.find_head(conn, city_id)
    size, roots = (head.size, head.roots) if head else (0, ())
    if (size, tuple(roots)) != (frontier.size, frontier.roots) or size != manifest.log_size:
        raise WrongPackage("its log is not as long as it says, or not of these entries")
    if frontier.root() != manifest.log_root:
        raise WrongPackage("the root of its log is not the one that was signed with the package")
    if last is None:
        return
    verifier = to_verifier(origin_of(city_id), manifest.chain.key_at(last.size))
    try:
        checkpoint = parse_checkpoint(open_note(last.note.encode(), [verifier]).text)
    except (WrongNote, WrongCheckpoint) as error:
        raise WrongPackage(f"its last checkpoint is not signed by it: {error}") from error
    if (checkpoint.size, checkpoint.root) != (last.size, signed_root):
        raise WrongPackage("its last checkpoint is not of these entries")


async def check_known(conn: Conn, manifest: Manifest, heard: Sequence[str]) -> None:
    """Raises CannotArrive when others have a checkpoint of the city that this log does not hold:
    the package is an old one, and the city lives on elsewhere."""
    for raw in heard:
        found = halting.read_own(manifest.chain, manifest.city, raw)
        if found is None:
            continue
        try:
            await halting.compare(conn, manifest.city, manifest.log_size, found[0])
        except halting.StillHalted as error:
            raise CannotArrive(
                f"{manifest.city} has gone on elsewhere since this package was made: {error}"
            ) from error


async def check_books(conn: Conn, city_id: str) -> None:
    for report in await reports_of(conn):
        if report.city_id == city_id and not report.sound:
            raise CannotArrive(f"the book does not add up: {report.wrong[0]}")
