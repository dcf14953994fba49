"""The entries of a book, part by part; of a large one, read in a process of its own.

That process reads lines into rows; this one inflates the next part meanwhile, hashes the lines and
looks at the rows beside each other: on two cores both have about as much to do.
"""

import marshal
import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection

from copass_verify.bundle import CityFiles, WrongBundle
from copass_verify.runs import Reader, Row

# Starting a process takes as long as reading so much of it.
APART_BYTES_MIN = 20_000_000
JOIN_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines, from entry `begin` on, and a row for each that is surely right by itself."""

    begin: int
    text: bytes
    rows: list[Row | None]


def read_parts(files: CityFiles, *, apart: bool) -> Iterator[Lines]:
    """All entries. `apart`: in a process of its own, if the book is large. Raises WrongBundle."""
    if apart and files.size_of("entries.jsonl") >= APART_BYTES_MIN:
        return read_apart(files)
    return read_here(files)


def read_here(files: CityFiles) -> Iterator[Lines]:
    reader = Reader(files.city)
    begin = 0
    for text in files.parts("entries.jsonl"):
        rows = reader.read(begin, text)
        yield Lines(begin, text, rows)
        begin += len(rows)


def read_apart(files: CityFiles) -> Iterator[Lines]:
    """As `read_here`. One part is with the other process while we look at the one before it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=read_for, args=(there, files.city), daemon=True)
    process.start()
    there.close()
    try:
        with closing(here):
            yield from exchange(here, files)
    finally:
        process.terminate()
        process.join(JOIN_TIMEOUT_S)


def exchange(other: Connection, files: CityFiles) -> Iterator[Lines]:
    """Never sends a part before the rows of the one before have come, or both would wait."""
    parts = files.parts("entries.jsonl")
    begin = 0
    following = next(parts, None)
    try:
        if following is not None:
            other.send_bytes(following)
        while (text := following) is not None:
            following = next(parts, None)
            # Our own process wrote this, by the same code that runs here.
            rows = marshal.loads(other.recv_bytes())  # noqa: S302
            if following is not None:
                other.send_bytes(following)
            yield Lines(begin, text, rows)
            begin += len(rows)
    except (EOFError, OSError) as error:
        raise WrongBundle(f"{files.source}: reading {files.city} ended early") from error


def read_for(other: Connection, city: str) -> None:
    """The other process: rows for each part that comes, until nobody sends any."""
    reader = Reader(city)
    begin = 0
    try:
        while True:
            rows = reader.read(begin, other.recv_bytes())
            other.send_bytes(marshal.dumps(rows))
            begin += len(rows)
    except (EOFError, OSError, KeyboardInterrupt):
        return
