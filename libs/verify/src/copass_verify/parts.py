"""The entries of a book, part by part; of a large one, read in a process of its own.

That process inflates the file and reads lines into rows, this one hashes the same lines and
looks at the rows beside each other: on two cores both have about as much to do.
"""

import marshal
import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from copass_verify.bundle import CityFiles, WrongBundle, open_city
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
    """As `read_here`. The other process is at most one part ahead."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(
        target=send_parts, args=(there, files.source, files.city), daemon=True
    )
    process.start()
    there.close()
    try:
        with closing(here):
            yield from receive_parts(here, files)
    finally:
        process.terminate()
        process.join(JOIN_TIMEOUT_S)


def receive_parts(here: Connection, files: CityFiles) -> Iterator[Lines]:
    begin = 0
    while True:
        try:
            told = here.recv()
            if isinstance(told, str):
                raise WrongBundle(told)
            if told is None:
                return
            text = here.recv_bytes()
            # Our own process wrote this, by the same code that runs here.
            rows = marshal.loads(here.recv_bytes())  # noqa: S302
        except (EOFError, OSError) as error:
            raise WrongBundle(f"{files.source}: reading {files.city} ended early") from error
        yield Lines(begin, text, rows)
        begin += len(rows)


def send_parts(there: Connection, path: Path, city: str) -> None:
    """The other process: True before each part, then None; a text says what is wrong."""
    try:
        for part in read_here(open_city(path, city)):
            there.send(True)
            there.send_bytes(part.text)
            there.send_bytes(marshal.dumps(part.rows))
        there.send(None)
    except WrongBundle as error:
        there.send(str(error))
    except (BrokenPipeError, KeyboardInterrupt):
        return
