"""A city leaves this time bank: frozen, written into a package, and from then on not served here.

Each step is durable before the next begins, and each can be done again:

1. frozen     nothing is written into the book any more; what was being written is waited for
2. written    the whole package is in FILE.part, on the disk
3. moved      one transaction: this time bank never serves or signs for the city again
4. named      FILE.part becomes FILE

Killed before 3, the city is still here, frozen: the same command goes on, `--cancel` opens it
again. Killed after 3, it is nowhere yet: the same command writes the package again. It is imported
from a FILE alone, never from a FILE.part, and FILE is there only after 3: never do both serve.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from common import db
from common.db import Conn
from common.logging import get_logger
from copass_verify.merkle import Frontier
from timebank.cities import package, store
from timebank.cities.package import Manifest, Part, Writer
from timebank.cities.tables import UnknownTable
from timebank.clearing import keys_store
from timebank.clearing.keys import Vault
from timebank.log import store as log_store

WRITERS_WAIT_S = 60.0
WRITERS_POLL_S = 0.05

log = get_logger(__name__)

# Called with a table and how many of its rows were written.
Progress = Callable[[str, int], None]


class CannotLeave(Exception):
    """The city stays as it is; the message says why."""


@dataclass(frozen=True, slots=True)
class Left:
    """The package that a city left in. `unsent`: events that this time bank has yet to publish."""

    manifest: Manifest
    unsent: int


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


async def leave(
    dsn: str,
    vault: Vault,
    city_id: str,
    path: Path,
    secret: str,
    *,
    package_id: UUID,
    now: datetime,
    progress: Progress,
) -> Left:
    """Write a city into a package and serve it no more. Raises CannotLeave; OSError when the file
    cannot be written: the city is frozen then, or moved, and the same command goes on."""
    part = part_of(path)
    connection = await db.connect(dsn, name="timebank-export")
    try:
        if not await store.move_alone(connection):
            raise CannotLeave("another command is moving a city of this database")
        async with connection.transaction():
            await freeze(connection, city_id, now)
        await wait_for_writers(connection)
        writer = Writer(part)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                manifest, raw = await write(
                    connection, vault, city_id, writer, secret, package_id, now, progress
                )
        finally:
            writer.close()
        async with connection.transaction():
            await hand_away(connection, city_id, manifest, raw, now)
        package.put_in_place(part, path)
        unsent = await store.unsent(connection)
    finally:
        await connection.close(timeout=5)
    return Left(manifest, unsent)


async def freeze(conn: Conn, city_id: str, now: datetime) -> None:
    """Let nothing more be written into the book. Again, nothing."""
    place = await store.lock_place(conn, city_id)
    if place is None or place == "elsewhere":
        raise CannotLeave(f"{city_id} has no book here")
    if await store.find_key(conn, city_id) is None:
        raise CannotLeave(f"{city_id} has no key yet: its worker makes the first")
    head = await log_store.find_head(conn, city_id)
    if head is not None and head.halted is not None:
        raise CannotLeave(f"the log of {city_id} is halted: {head.halted}")
    if place == "here":
        await store.add_step(conn, city_id, "frozen", now)
        await store.save_place(conn, city_id, "moving")
        log.warning("city_frozen", city=city_id)


async def wait_for_writers(connection: db.Connection) -> None:
    """Until all have ended who may not have seen that the city is frozen.

    Raises CannotLeave after WRITERS_WAIT_S; the city is frozen then.
    """
    waiting = await store.writers(connection)
    deadline = asyncio.get_running_loop().time() + WRITERS_WAIT_S
    while waiting := waiting & await store.writers(connection):
        if asyncio.get_running_loop().time() > deadline:
            pids = ", ".join(str(pid) for pid, _ in sorted(waiting))
            raise CannotLeave(
                f"somebody has been writing for {WRITERS_WAIT_S:.0f} s (processes {pids} of"
                " PostgreSQL). The city is frozen: say the same again, or --cancel."
            )
        await asyncio.sleep(WRITERS_POLL_S)


async def write(
    conn: db.Connection,
    vault: Vault,
    city_id: str,
    writer: Writer,
    secret: str,
    package_id: UUID,
    now: datetime,
    progress: Progress,
) -> tuple[Manifest, bytes]:
    """Write all of a frozen city, in one snapshot: the manifest, and as it was signed."""
    try:
        tables = await store.list_tables(conn)
    except UnknownTable as error:
        raise CannotLeave(str(error)) from error
    parts = []
    for table in tables:
        with writer.table(table.name) as to:
            status = await conn.copy_from_query(
                table.query, city_id, output=to, format="csv", header=True
            )
        rows = int(status.split()[-1])
        parts.append(Part(table.name, table.columns, rows, to.sha256))
        progress(table.name, rows)
    chain = await keys_store.own_chain(conn, city_id)
    found = await store.find_key(conn, city_id)
    if chain is None or found is None:
        raise CannotLeave(f"{city_id} has no key")
    number, sealed, since = found
    key = vault.open(sealed, city_id)
    head = await log_store.find_head(conn, city_id)
    last = await log_store.last_checkpoint(conn, city_id)
    manifest = Manifest(
        package_id=package_id,
        city=city_id,
        made_at=now.isoformat(),
        migrations=tuple(await store.migrations(conn)),
        cities_named=tuple(await store.cities_named(conn, city_id)),
        chain=chain,
        key=package.seal_key(key, city_id, secret, number, since.isoformat()),
        log_size=head.size if head else 0,
        log_root=Frontier(head.size, head.roots).root() if head else Frontier().root(),
        checkpoint=last.note if last else None,
        parts=tuple(parts),
    )
    raw = manifest.encode()
    writer.finish(raw, package.sign(raw, city_id, key))
    return manifest, raw


async def hand_away(
    conn: Conn, city_id: str, manifest: Manifest, raw: bytes, now: datetime
) -> None:
    """From here on this time bank has nothing more to say for the city."""
    place = await store.lock_place(conn, city_id)
    if place not in ("moving", "moved"):
        raise CannotLeave(f"{city_id} was opened again meanwhile: the package is not to be used")
    await store.add_step(
        conn,
        city_id,
        "exported",
        now,
        package_id=manifest.package_id,
        sha256=package.digest_of(raw),
        log_size=manifest.log_size,
    )
    if place == "moving":
        await store.save_place(conn, city_id, "moved")
        log.warning("city_moved", city=city_id, package=str(manifest.package_id))


async def cancel(conn: Conn, city_id: str, now: datetime) -> None:
    """Open a frozen city again. Raises CannotLeave once it has moved: a package may be in use."""
    place = await store.lock_place(conn, city_id)
    if place == "moved":
        raise CannotLeave(
            f"{city_id} has moved: its package may be in use. Import that elsewhere, or say the"
            " same again to have it written anew."
        )
    if place != "moving":
        raise CannotLeave(f"{city_id} is not being moved")
    await store.add_step(conn, city_id, "cancelled", now)
    await store.save_place(conn, city_id, "here")
    log.warning("city_opened_again", city=city_id)
