"""Evidence bundles: one zip file with what some cities' logs say, readable without us.

README.txt
bundle.json                     {"format": "copass evidence v1", "made_at", "cities"}
cosigners.txt                   keys of cities that cosign, one per line
cosigners.json                  {"<city>": list of its keys}, with the hand-overs between them
cities/<city>/keys.txt          keys that sign its checkpoints, one per line
cities/<city>/keys.json         the same as a list with the hand-overs; see keys
cities/<city>/checkpoints.jsonl each checkpoint ever signed: a note as a JSON string
cities/<city>/entries.jsonl     each entry, as it was hashed
cities/<city>/leaves.bin        their 32-byte hashes, in order
cities/<city>/messages.jsonl    the signed clearing messages that it sent and heard

An excerpt has some entries only, and no leaves.bin; bundle.json says "copass evidence excerpt v1"
and "excerpt": {"from", "until", "with"}. It has instead

cities/<city>/proofs.jsonl      for each entry, that it is in the log: a tlog-proof as a JSON string
"""

import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from copass_verify.entries import CITY, ENTRY_BYTES_MAX, WrongEntry, matches, read_object
from copass_verify.merkle import HASH_BYTES
from copass_verify.notes import NOTE_BYTES_MAX, Verifier, WrongKey, parse_verifier

FORMAT = "copass evidence v1"
FORMAT_EXCERPT = "copass evidence excerpt v1"
SMALL_BYTES_MAX = 20_000_000
PART_BYTES = 1 << 18

README_EXCERPT = """\
This is an excerpt: the entries of a period, or those between two cities, and not all. Each has a
proof beside it, in proofs.jsonl, that it is in the log that its city signed. Each line there is a
JSON string; written to a file of its own it is a proof in the form of C2SP tlog-proof: "index" and
the number of the entry, the hashes from beside the entry's hash up to the root (RFC 6962, section
2.1.1), a blank line, and the checkpoint. To verify one by hand: hash the entry as below; combine it
with the hashes, each from the left where the number, halved once per step, is odd (or the last of
its level), else from the right; the result is the root of the checkpoint.

An excerpt cannot show what balances are, nor that they stayed above their floors, nor what was
before. Unless its entries have numbers without a gap, it cannot show that nothing was left out.

"""

README = """\
What this is

Evidence of what cities' time banks have written in their books: who gave how many minutes to whom,
with names that mean nothing to others, in logs that can only grow. It can be verified without any
server, by the program copass-verify or by any other, for as long as SHA-256, Ed25519, zip and JSON
are understood:

    pip install copass-verify
    copass-verify this-file.zip

What is in it

bundle.json                      the format and the cities, as JSON
cosigners.txt                    the keys with which cities cosign each other's checkpoints
cosigners.json                   the same keys by city, each with the note by which it follows
cities/<city>/keys.txt           the keys with which a city signs: name+key id+base64
cities/<city>/keys.json          the same, the oldest first. Each later one signs checkpoints from
                                 "from_size" entries on, and no other does; its "statement" is the
                                 signed note by which the key before handed over, signed by both
cities/<city>/checkpoints.jsonl  every checkpoint that the city ever signed. Each line is a JSON
                                 string, a signed note (C2SP signed-note and tlog-checkpoint): the
                                 log's name, the number of its entries, the root of the tree over
                                 them; "time" in seconds since 1970; then signatures, the city's
                                 (Ed25519) and those of others who saw it (cosignature/v1)
cities/<city>/entries.jsonl      every entry, one per line. The line without its end is what is
                                 hashed
cities/<city>/leaves.bin         the entries' hashes, 32 bytes each: they tell which entry was
                                 changed when a root differs
cities/<city>/messages.jsonl     what the city and others said to each other about transfers between
                                 them, signed: Ed25519 over "copass clearing v1", a line feed, and
                                 the message without its signature as canonical JSON (RFC 8785)

How to verify it by hand

1. The hash of an entry is SHA-256 of a zero byte and the line. The hash of two neighbours is
   SHA-256 of a one byte, the left hash and the right hash. Split n entries at the largest power of
   two below n, and so on down (RFC 6962). The root over the first n entries must be that of the
   checkpoint of n entries.
2. The minutes of an entry sum to zero. Added up per account they never fall below the floor that
   stands beside them.
3. A transfer to another city departs (to in_transit), then is settled or returned. One that was
   settled has one arrival in the other city's log, of as many minutes, and one that was returned
   has none.

Whose keys these are this file cannot prove by itself: compare them with those that the cities
publish, and give them to the program with --key.
"""


# A file that is not there, damaged, encrypted, or packed in a way that is not known here.
UNREADABLE = (
    KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError,
)  # fmt: skip


class WrongBundle(ValueError):
    """The file is no bundle that can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class CityFiles:
    """One city of one bundle; what is large is read as it is needed."""

    city: str
    archive: zipfile.ZipFile
    keys: tuple[Verifier, ...]
    source: Path
    excerpt: bool = False
    # keys.json, not looked at yet; None when there is none.
    key_list: list[Any] | None = None

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        try:
            with self.archive.open(f"cities/{self.city}/{name}") as file:
                yield file
        except UNREADABLE as error:
            raise WrongBundle(f"{self.source}: {self.city}/{name} is missing or broken") from error

    def size_of(self, name: str) -> int:
        """How long the archive says that a file is; 0 when it is not there."""
        try:
            return self.archive.getinfo(f"cities/{self.city}/{name}").file_size
        except KeyError:
            return 0

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a file, without their ends."""
        with self.open(name) as file:
            while line := file.readline(ENTRY_BYTES_MAX + 2):
                yield line.removesuffix(b"\n")

    def parts(self, name: str) -> Iterator[bytes]:
        """The file in pieces of whole lines, each line with its end, the last one too; a line that
        is too long for an entry is cut."""
        rest = b""
        with self.open(name) as file:
            while data := file.read(PART_BYTES):
                data = rest + data
                cut = data.rfind(b"\n") + 1
                if cut == 0 and len(data) > ENTRY_BYTES_MAX:
                    yield data + b"\n"
                    rest = b""
                    continue
                if cut:
                    yield data[:cut]
                rest = data[cut:]
        if rest:
            yield rest + b"\n"

    def notes(self, name: str = "checkpoints.jsonl") -> Iterator[bytes]:
        """The checkpoints, each a signed note that is still to be opened; or proofs."""
        with self.open(name) as file:
            while line := file.readline(NOTE_BYTES_MAX * 2):
                try:
                    note = json.loads(line)
                except ValueError:
                    note = None
                yield note.encode() if type(note) is str else b""

    def leaves(self) -> Iterator[bytes]:
        with self.open("leaves.bin") as file:
            while leaf := file.read(HASH_BYTES):
                yield leaf


@dataclass(frozen=True, slots=True)
class Bundle:
    path: Path
    cities: tuple[CityFiles, ...]
    cosigners: tuple[Verifier, ...]
    # cosigners.json, its lists not looked at yet; None when there is none.
    cosigner_lists: dict[str, list[Any]] | None = None


def open_bundle(path: Path) -> Bundle:
    """Raises WrongBundle, also for one that cannot be read at all."""
    try:
        archive = zipfile.ZipFile(path)
        about = read_object(read_small(archive, "bundle.json"))
    except (OSError, WrongEntry, *UNREADABLE) as error:
        raise WrongBundle(f"{path} is no evidence bundle") from error
    cities = about.get("cities")
    excerpt = about.get("format") == FORMAT_EXCERPT
    if not (excerpt or about.get("format") == FORMAT) or type(cities) is not list:
        raise WrongBundle(f"{path} is of another format than {FORMAT!r}")
    if not all(matches(CITY, city) for city in cities) or not len(set(cities)) == len(cities) > 0:
        raise WrongBundle(f"{path} names its cities wrongly")
    try:
        files = tuple(
            CityFiles(
                city,
                archive,
                read_keys(archive, f"cities/{city}/keys.txt"),
                path,
                excerpt,
                read_key_list(archive, f"cities/{city}/keys.json"),
            )
            for city in cities
        )
        cosigners = read_keys(archive, "cosigners.txt")
        return Bundle(path, files, cosigners, read_key_lists(archive, "cosigners.json"))
    except (ValueError, *UNREADABLE) as error:
        raise WrongBundle(f"{path} has keys that are missing or malformed: {error}") from error


def read_small(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        return file.read(SMALL_BYTES_MAX)


def read_keys(archive: zipfile.ZipFile, name: str) -> tuple[Verifier, ...]:
    lines = read_small(archive, name).decode().splitlines()
    return tuple(parse_verifier(line) for line in lines if line.strip())


def read_json(archive: zipfile.ZipFile, name: str) -> Any:
    """None when there is no such file. Raises ValueError."""
    if name not in archive.namelist():
        return None
    try:
        return json.loads(read_small(archive, name))
    except RecursionError as error:
        raise ValueError(f"{name} is no JSON") from error


def read_key_list(archive: zipfile.ZipFile, name: str) -> list[Any] | None:
    found = read_json(archive, name)
    if found is not None and type(found) is not list:
        raise WrongKey(f"{name} is no list")
    return found


def read_key_lists(archive: zipfile.ZipFile, name: str) -> dict[str, list[Any]] | None:
    found = read_json(archive, name)
    if found is None:
        return None
    if type(found) is not dict or not all(
        matches(CITY, city) and type(listed) is list for city, listed in found.items()
    ):
        raise WrongKey(f"{name} is no object of lists")
    return found
