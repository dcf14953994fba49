"""Evidence bundles: what cities' logs say, in one file that copass-verify reads without us."""

import zipfile
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO

import orjson

from common import db
from common.db import Conn
from copass_verify.bundle import FORMAT, README
from copass_verify.notes import to_verifier
from timebank.clearing import keys_store
from timebank.clearing.handover import Chain
from timebank.log import store
from timebank.log.domain import origin_of

AT_ONCE = 2000


async def write_bundle(dsn: str, cities: Sequence[str], path: Path, now: datetime) -> list[str]:
    """Write the bundle of these cities, or of all that signed anything; the cities in it.

    In one snapshot, so that transfers may go on meanwhile; memory does not grow with the books.
    Raises LookupError when a city that was named has signed nothing, OSError when the file cannot
    be written.
    """
    connection = await db.connect(dsn, name="timebank-bundle")
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            sizes = await store.signed_sizes(connection)
            if missing := [city for city in cities if city not in sizes]:
                raise LookupError(f"{', '.join(missing)} signed no checkpoint here")
            chosen = sorted(set(cities) or sizes)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                about = {"format": FORMAT, "made_at": now.isoformat(), "cities": chosen}
                archive.writestr("README.txt", README)
                archive.writestr("bundle.json", orjson.dumps(about))
                known = await all_chains(connection)
                keys = [(city, key) for city, chain in known.items() for key in chain.keys]
                archive.writestr("cosigners.txt", lines_of_keys(keys, cosigns=True))
                listed = {city: chain.listed() for city, chain in known.items()}
                archive.writestr("cosigners.json", orjson.dumps(listed))
                for city_id in chosen:
                    await write_city(connection, archive, city_id, sizes[city_id])
    finally:
        await connection.close(timeout=5)
    return chosen


async def all_chains(conn: Conn) -> dict[str, Chain]:
    """The keys of all cities that are known here, ours and others'."""
    chains = {}
    for city_id in await keys_store.known_cities(conn):
        own = await keys_store.own_chain(conn, city_id)
        chain = own or await keys_store.peer_chain(conn, city_id)
        if chain is not None:
            chains[city_id] = chain
    return chains


def lines_of_keys(keys: Sequence[tuple[str, bytes]], *, cosigns: bool) -> str:
    verifiers = [to_verifier(origin_of(city), key, cosigns=cosigns) for city, key in keys]
    return "".join(f"{verifier}\n" for verifier in verifiers)


async def write_city(conn: Conn, archive: zipfile.ZipFile, city_id: str, size: int) -> None:
    folder = f"cities/{city_id}"
    chain = await keys_store.own_chain(conn, city_id)
    keys = [(city_id, key) for key in chain.keys] if chain else []
    archive.writestr(f"{folder}/keys.txt", lines_of_keys(keys, cosigns=False))
    archive.writestr(f"{folder}/keys.json", orjson.dumps(chain.listed() if chain else []))
    with archive.open(f"{folder}/checkpoints.jsonl", "w") as file:
        after = 0
        while found := await store.list_checkpoints(conn, city_id, after, AT_ONCE):
            for signed in found:
                file.write(orjson.dumps(signed.note) + b"\n")
            after = found[-1].size
    with archive.open(f"{folder}/entries.jsonl", "w") as file:
        async for entry in all_entries(conn, city_id, size):
            file.write(entry.entry + b"\n")
    # A second reading: a zip file is written one member after the other.
    with archive.open(f"{folder}/leaves.bin", "w") as file:
        async for entry in all_entries(conn, city_id, size):
            file.write(entry.leaf_hash)
    with archive.open(f"{folder}/messages.jsonl", "w") as file:
        await write_messages(conn, file, city_id)


async def all_entries(conn: Conn, city_id: str, size: int) -> AsyncIterator[store.Entry]:
    for begin in range(0, size, AT_ONCE):
        for entry in await store.list_entries(conn, city_id, begin, min(begin + AT_ONCE, size)):
            yield entry


async def write_messages(conn: Conn, file: IO[bytes], city_id: str) -> None:
    async for message in store.all_messages(conn, city_id, AT_ONCE):
        file.write(orjson.dumps(message) + b"\n")
