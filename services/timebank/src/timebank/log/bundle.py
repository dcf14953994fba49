"""Evidence bundles: what cities' logs say, in one file that copass-verify reads without us.

Written from the first byte to the last, so that it can be sent while it is made; memory does not
grow with the books.
"""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from io import RawIOBase
from pathlib import Path
from typing import Any

import orjson

from common import db
from common.db import Conn
from copass_verify.bundle import FORMAT, FORMAT_EXCERPT, README, README_EXCERPT
from copass_verify.notes import to_verifier
from copass_verify.proofs import write_proof
from timebank.clearing import keys_store
from timebank.clearing.handover import Chain
from timebank.log import evidence_store, service, store
from timebank.log.domain import origin_of

AT_ONCE = 2000
# Proofs that are made together: they share most of the nodes that they need.
PROOFS_AT_ONCE = 512
SENT_BYTES = 1 << 16
BUNDLES_MAX = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which evidence: whole books of these cities, or of all that signed; or an excerpt of a
    period (from `begin` to before `end`) or of what moved between each of them and `peer`."""

    cities: tuple[str, ...] = ()
    peer: str | None = None
    begin: datetime | None = None
    end: datetime | None = None

    @property
    def is_excerpt(self) -> bool:
        return (self.peer, self.begin, self.end) != (None, None, None)


class Bundles:
    """What bundles over HTTP are written from, a few at a time."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.at_once = asyncio.Semaphore(BUNDLES_MAX)


class Sink(RawIOBase):
    """Where the archive is written to, and taken from in pieces."""

    def __init__(self) -> None:
        self.held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.held += content
        return len(content)

    def take(self) -> bytes:
        taken = bytes(self.held)
        self.held.clear()
        return taken


@asynccontextmanager
async def open_bundle(dsn: str, wanted: Wanted, now: datetime) -> AsyncIterator["BundleWriter"]:
    """A bundle that is about to be written, in one snapshot: transfers may go on meanwhile.

    Raises LookupError when a city that was named has signed nothing.
    """
    connection = await db.connect(dsn, name="timebank-bundle")
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            sizes = await store.signed_sizes(connection)
            if missing := [city for city in wanted.cities if city not in sizes]:
                raise LookupError(f"{', '.join(missing)} signed no checkpoint here")
            chosen = {city: sizes[city] for city in sorted(set(wanted.cities) or sizes)}
            if not chosen:
                raise LookupError("no city signed a checkpoint here")
            yield BundleWriter(connection, wanted, chosen, now)
    finally:
        await connection.close(timeout=5)


async def write_bundle(
    dsn: str, cities: Sequence[str], path: Path, now: datetime, wanted: Wanted | None = None
) -> list[str]:
    """Write a bundle to a file; the cities in it. Raises LookupError, and OSError when the file
    cannot be written."""
    async with open_bundle(dsn, wanted or Wanted(tuple(cities)), now) as writer:
        with path.open("wb") as file:
            async for piece in writer.pieces():
                file.write(piece)
        return list(writer.sizes)


@dataclass(frozen=True, slots=True)
class BundleWriter:
    """`sizes`: the cities in it, each with how many entries it has signed."""

    conn: Conn
    wanted: Wanted
    sizes: dict[str, int]
    now: datetime

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file, in pieces of some 64 KiB and more."""
        sink = Sink()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            await self.write_head(archive)
            for city_id, size in self.sizes.items():
                write = self.write_excerpt if self.wanted.is_excerpt else self.write_book
                async for _ in write(archive, city_id, size):
                    if len(sink.held) >= SENT_BYTES:
                        yield sink.take()
        yield sink.take()

    async def write_head(self, archive: zipfile.ZipFile) -> None:
        about: dict[str, Any] = {
            "format": FORMAT,
            "made_at": self.now.isoformat(),
            "cities": list(self.sizes),
        }
        if self.wanted.is_excerpt:
            begin, end = self.wanted.begin, self.wanted.end
            about["format"] = FORMAT_EXCERPT
            about["excerpt"] = {
                "from": begin.isoformat() if begin else None,
                "until": end.isoformat() if end else None,
                "with": self.wanted.peer,
            }
        head = README_EXCERPT if self.wanted.is_excerpt else ""
        archive.writestr("README.txt", head + README)
        archive.writestr("bundle.json", orjson.dumps(about))
        known = await all_chains(self.conn)
        keys = [(city, key) for city, chain in known.items() for key in chain.keys]
        archive.writestr("cosigners.txt", lines_of_keys(keys, cosigns=True))
        listed = {city: chain.listed() for city, chain in known.items()}
        archive.writestr("cosigners.json", orjson.dumps(listed))

    async def write_keys(self, archive: zipfile.ZipFile, city_id: str) -> None:
        folder = f"cities/{city_id}"
        chain = await keys_store.own_chain(self.conn, city_id)
        keys = [(city_id, key) for key in chain.keys] if chain else []
        archive.writestr(f"{folder}/keys.txt", lines_of_keys(keys, cosigns=False))
        archive.writestr(f"{folder}/keys.json", orjson.dumps(chain.listed() if chain else []))

    # ── A whole book ────────────────────────────────────────────────────────────────────────────

    async def write_book(
        self, archive: zipfile.ZipFile, city_id: str, size: int
    ) -> AsyncIterator[None]:
        """Yields whenever a part is written."""
        folder = f"cities/{city_id}"
        await self.write_keys(archive, city_id)
        with archive.open(f"{folder}/checkpoints.jsonl", "w") as file:
            after = 0
            while found := await store.list_checkpoints(self.conn, city_id, after, AT_ONCE):
                file.write(b"".join(orjson.dumps(signed.note) + b"\n" for signed in found))
                after = found[-1].size
                yield
        with archive.open(f"{folder}/entries.jsonl", "w") as file:
            async for entries in self.all_entries(city_id, size):
                file.write(b"".join(entry.entry + b"\n" for entry in entries))
                yield
        # A second reading: a zip file is written one member after the other.
        with archive.open(f"{folder}/leaves.bin", "w") as file:
            async for entries in self.all_entries(city_id, size):
                file.write(b"".join(entry.leaf_hash for entry in entries))
                yield
        with archive.open(f"{folder}/messages.jsonl", "w") as file:
            async for message in store.all_messages(self.conn, city_id, AT_ONCE):
                file.write(orjson.dumps(message) + b"\n")
                yield

    async def all_entries(self, city_id: str, size: int) -> AsyncIterator[list[store.Entry]]:
        for begin in range(0, size, AT_ONCE):
            end = min(begin + AT_ONCE, size)
            yield await store.list_entries(self.conn, city_id, begin, end)

    # ── An excerpt ──────────────────────────────────────────────────────────────────────────────

    async def write_excerpt(
        self, archive: zipfile.ZipFile, city_id: str, size: int
    ) -> AsyncIterator[None]:
        """Yields whenever a part is written."""
        folder = f"cities/{city_id}"
        await self.write_keys(archive, city_id)
        signed = await store.last_checkpoint(self.conn, city_id)
        assert signed is not None
        archive.writestr(f"{folder}/checkpoints.jsonl", orjson.dumps(signed.note) + b"\n")
        with archive.open(f"{folder}/entries.jsonl", "w") as file:
            async for indexes in self.chosen(city_id, size):
                entries = await evidence_store.entries_of(self.conn, city_id, indexes)
                file.write(b"".join(entry + b"\n" for entry in entries))
                yield
        with archive.open(f"{folder}/proofs.jsonl", "w") as file:
            async for indexes in self.chosen(city_id, size):
                proofs = await service.inclusions(self.conn, city_id, indexes, size)
                for index, proof in zip(indexes, proofs, strict=True):
                    file.write(orjson.dumps(write_proof(index, proof, signed.note)) + b"\n")
                yield
        with archive.open(f"{folder}/messages.jsonl", "w") as file:
            messages = evidence_store.messages_between(
                self.conn, city_id, self.wanted.peer, self.wanted.begin, self.wanted.end, AT_ONCE
            )
            async for message in messages:
                file.write(orjson.dumps(message) + b"\n")
                yield

    async def chosen(self, city_id: str, size: int) -> AsyncIterator[list[int]]:
        """The numbers of the entries that are wanted, some at a time, in order."""
        begin, end = self.wanted.begin, self.wanted.end
        if self.wanted.peer is not None:
            after = -1
            while found := await evidence_store.indexes_between(
                self.conn, city_id, self.wanted.peer, begin, end, after, size, PROOFS_AT_ONCE
            ):
                yield found
                after = found[-1]
            return
        # Everything from the first of the period to the last, so that nothing can be missing.
        first, last = await evidence_store.index_range(self.conn, city_id, begin, end, size)
        for index in range(first, last, PROOFS_AT_ONCE):
            yield list(range(index, min(index + PROOFS_AT_ONCE, last)))


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
