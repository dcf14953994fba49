"""The first reading of entries: what they hash to, at each size that a checkpoint signs.

For a large book it runs in a process of its own, beside the one that looks at what the entries say;
both work on the same bytes, because they are handed on by the one that hashes them.
"""

import multiprocessing
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from copass_verify.bundle import CityFiles, WrongBundle, open_city
from copass_verify.merkle import Frontier

# Starting a process takes as long as hashing this many bytes a few times.
APART_BYTES_MIN = 20_000_000
JOIN_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Part:
    """Whole lines, from entry `begin` on; `roots`: the root at each size asked for that ends within
    them or with them."""

    begin: int
    text: bytes
    roots: tuple[tuple[int, bytes], ...]


def hash_parts(files: CityFiles, sizes: Sequence[int]) -> Iterator[Part]:
    """The entries in parts, with the roots at `sizes` (sorted, above 0). Raises WrongBundle."""
    frontier = Frontier()
    for text in files.parts("entries.jsonl"):
        lines = text.split(b"\n")
        lines.pop()
        begin, end = frontier.size, frontier.size + len(lines)
        roots = []
        for size in sizes[bisect_right(sizes, begin) : bisect_right(sizes, end)]:
            frontier.extend(lines[frontier.size - begin : size - begin])
            roots.append((size, frontier.root()))
        frontier.extend(lines[frontier.size - begin :])
        yield Part(begin, text, tuple(roots))


def read_parts(files: CityFiles, sizes: Sequence[int], *, apart: bool) -> Iterator[Part]:
    """`hash_parts`, in a process of its own when it may be and the book is large."""
    if apart and files.size_of("entries.jsonl") >= APART_BYTES_MIN:
        return hash_apart(files, sizes)
    return hash_parts(files, sizes)


def hash_apart(files: CityFiles, sizes: Sequence[int]) -> Iterator[Part]:
    """As `hash_parts`. The other process is at most one part ahead."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    arguments = (there, files.source, files.city, tuple(sizes))
    process = context.Process(target=send_parts, args=arguments, daemon=True)
    process.start()
    there.close()
    try:
        with closing(here):
            yield from receive_parts(here, files)
    finally:
        process.terminate()
        process.join(JOIN_TIMEOUT_S)


def receive_parts(here: Connection, files: CityFiles) -> Iterator[Part]:
    broken = f"{files.source}: reading {files.city} ended early"
    while True:
        try:
            told = here.recv()
            if isinstance(told, str):
                raise WrongBundle(told)
            if told is None:
                return
            begin, roots = told
            yield Part(begin, here.recv_bytes(), roots)
        except (EOFError, OSError) as error:
            raise WrongBundle(broken) from error


def send_parts(there: Connection, path: Path, city: str, sizes: Sequence[int]) -> None:
    """The other process: every part, then None; a text says what is wrong with the bundle."""
    try:
        for part in hash_parts(open_city(path, city), sizes):
            there.send((part.begin, part.roots))
            there.send_bytes(part.text)
        there.send(None)
    except WrongBundle as error:
        there.send(str(error))
    except (BrokenPipeError, KeyboardInterrupt):
        return
