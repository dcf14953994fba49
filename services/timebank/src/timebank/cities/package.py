"""A city in one file: its rows as CSV, a manifest with their checksums that the city signed, and
its key, sealed with a passphrase.

    README.txt
    manifest.json      {"format", "package_id", "city", "made_at", "migrations", "cities_named",
                        "keys", "key", "log": {"size", "root", "checkpoint"},
                        "tables": [{"name", "columns", "rows", "sha256"}]}
    manifest.note      the city's signature over the manifest's SHA-256 (C2SP signed-note)
    tables/<name>.csv  one row per line, the columns' names first (PostgreSQL's COPY … CSV)

It holds personal data (words on transfers, what was said of contributions): keep it as such.
"""

import base64
import hashlib
import json
import os
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from common.sealing import Sealer, WrongSecret
from copass_verify.notes import Signer, WrongNote, format_note, open_note, to_verifier
from timebank.clearing.handover import Chain, WrongKeys, public, read_chain
from timebank.log.domain import origin_of

FORMAT = "copass city v1"
HEADER = "copass city package v1"
CHUNK = 1 << 20
MANIFEST_MAX = 10_000_000
SECRET_MIN = 16
SALT_BYTES = 16
# 64 MiB and a third of a second for each guess.
SCRYPT = {"n": 2**16, "r": 8, "p": 1}

README = """\
This file is a city's time bank: its book, its log, its agreements, what is on its way to and from
other cities, and the key that it signs with, which a passphrase opens.

Whoever has the passphrase can go on in the city's name:

    TIMEBANK_PACKAGE_SECRET=... python -m timebank import-city THIS-FILE

into a database that never opened the city's book. See docs/leaving.md. It holds personal data.

Without the program: each tables/<name>.csv is a table, its first line the names of the columns.
manifest.json has the SHA-256 of each, and manifest.note is the city's Ed25519 signature over the
SHA-256 of manifest.json.
"""


class WrongPackage(Exception):
    """The file is no package of a city, or not as it was made; the message says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A table in the package."""

    name: str
    columns: tuple[str, ...]
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package says of itself; `checkpoint`: the last that was signed, as a note."""

    package_id: UUID
    city: str
    made_at: str
    migrations: tuple[str, ...]
    cities_named: tuple[str, ...]
    chain: Chain
    key: Mapping[str, Any]
    log_size: int
    log_root: bytes
    checkpoint: str | None
    parts: tuple[Part, ...]

    def encode(self) -> bytes:
        return json.dumps(
            {
                "format": FORMAT,
                "package_id": str(self.package_id),
                "city": self.city,
                "made_at": self.made_at,
                "migrations": self.migrations,
                "cities_named": self.cities_named,
                "keys": self.chain.listed(),
                "key": self.key,
                "log": {
                    "size": self.log_size,
                    "root": base64.b64encode(self.log_root).decode(),
                    "checkpoint": self.checkpoint,
                },
                "tables": [
                    {
                        "name": part.name,
                        "columns": part.columns,
                        "rows": part.rows,
                        "sha256": part.sha256,
                    }
                    for part in self.parts
                ],
            },
            indent=1,
        ).encode()


def read_manifest(raw: bytes) -> Manifest:
    """Raises WrongPackage for anything of another form."""
    try:
        data = json.loads(raw)
        if data["format"] != FORMAT:
            raise WrongPackage(f"it is of another format than {FORMAT!r}")
        city = str(data["city"])
        return Manifest(
            package_id=UUID(data["package_id"]),
            city=city,
            made_at=str(data["made_at"]),
            migrations=tuple(map(str, data["migrations"])),
            cities_named=tuple(map(str, data["cities_named"])),
            chain=read_chain(city, data["keys"]),
            key=dict(data["key"]),
            log_size=int(data["log"]["size"]),
            log_root=base64.b64decode(data["log"]["root"], validate=True),
            checkpoint=data["log"]["checkpoint"],
            parts=tuple(
                Part(
                    str(part["name"]),
                    tuple(map(str, part["columns"])),
                    int(part["rows"]),
                    str(part["sha256"]),
                )
                for part in data["tables"]
            ),
        )
    except (KeyError, TypeError, ValueError, WrongKeys) as error:
        raise WrongPackage(f"its manifest is malformed: {error}") from error


# ── The key and the signature ───────────────────────────────────────────────────────────────────


def sealer_of(secret: str, salt: bytes, n: int, r: int, p: int) -> Sealer:
    """Raises ValueError for numbers that scrypt has not."""
    if not (1 < n <= 2**20 and 1 <= r <= 16 and 1 <= p <= 4):
        raise ValueError("these are no numbers for scrypt")
    return Sealer(Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(secret.encode()))


def seal_key(key: Ed25519PrivateKey, city: str, secret: str, number: int, since: str) -> Any:
    """A city's key as a package carries it."""
    salt = os.urandom(SALT_BYTES)
    sealed = sealer_of(secret, salt, **SCRYPT).seal(key.private_bytes_raw(), name=city)
    return {
        "number": number,
        "since": since,
        "kdf": {"name": "scrypt", **SCRYPT, "salt": base64.b64encode(salt).decode()},
        "sealed": base64.b64encode(sealed).decode(),
    }


def unseal_key(manifest: Manifest, secret: str) -> Ed25519PrivateKey:
    """The city's key. Raises WrongPackage when the passphrase does not open it."""
    try:
        kdf = manifest.key["kdf"]
        salt = base64.b64decode(kdf["salt"], validate=True)
        sealer = sealer_of(secret, salt, int(kdf["n"]), int(kdf["r"]), int(kdf["p"]))
        sealed = base64.b64decode(manifest.key["sealed"], validate=True)
        key = Ed25519PrivateKey.from_private_bytes(sealer.unseal(sealed, name=manifest.city))
    except WrongSecret as error:
        raise WrongPackage("the passphrase does not open its key") from error
    except (KeyError, TypeError, ValueError) as error:
        raise WrongPackage(f"its key is malformed: {error}") from error
    if public(key) != manifest.chain.newest:
        raise WrongPackage("the key in it is not the city's newest")
    return key


def statement(city: str, digest: bytes) -> str:
    return f"{HEADER}\n{origin_of(city)}\nsha256 {digest.hex()}\n"


def digest_of(manifest: bytes) -> bytes:
    return hashlib.sha256(manifest).digest()


def sign(manifest: bytes, city: str, key: Ed25519PrivateKey) -> str:
    text = statement(city, digest_of(manifest))
    return format_note(text, [Signer(to_verifier(origin_of(city), public(key)), key).sign(text)])


def check_signature(raw: bytes, note: bytes, manifest: Manifest) -> None:
    """Raises WrongPackage unless the city signed this manifest with its newest key."""
    verifier = to_verifier(origin_of(manifest.city), manifest.chain.newest)
    try:
        text = open_note(note, [verifier]).text
    except WrongNote as error:
        raise WrongPackage(f"{manifest.city} did not sign its manifest: {error}") from error
    if text != statement(manifest.city, digest_of(raw)):
        raise WrongPackage("what the city signed is another manifest")


# ── The file ────────────────────────────────────────────────────────────────────────────────────


class Writer:
    """Writes a package; nothing of it can be imported before `finish`."""

    def __init__(self, path: Path) -> None:
        # For its owner alone.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(handle, "w+b")
        self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        self._archive.writestr("README.txt", README)

    @contextmanager
    def table(self, name: str) -> Iterator["TableWriter"]:
        with self._archive.open(f"tables/{name}.csv", "w", force_zip64=True) as file:
            yield TableWriter(file)

    def finish(self, manifest: bytes, note: str) -> None:
        """All is on the disk when it returns."""
        self._archive.writestr("manifest.json", manifest)
        self._archive.writestr("manifest.note", note)
        self._archive.close()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Finished or not. Without its manifest nobody takes it for a package."""
        self._archive.close()
        self._file.close()


class TableWriter:
    """Takes what PostgreSQL copies, and keeps its checksum."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    async def __call__(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal."""
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class Package:
    """A package whose manifest was read and whose signature holds."""

    archive: zipfile.ZipFile
    manifest: Manifest
    sha256: bytes

    async def table(self, part: Part) -> AsyncIterator[bytes]:
        """A table, piece by piece. Raises WrongPackage at its end when it is not as it was made."""
        digest = hashlib.sha256()
        try:
            with self.archive.open(f"tables/{part.name}.csv") as file:
                while data := file.read(CHUNK):
                    digest.update(data)
                    yield data
        except (KeyError, zipfile.BadZipFile, EOFError) as error:
            raise WrongPackage(f"{part.name} is missing or broken") from error
        if digest.hexdigest() != part.sha256:
            raise WrongPackage(f"{part.name} was changed after the package was made")


def open_package(path: Path) -> Package:
    """Raises WrongPackage; OSError when the file cannot be read."""
    if path.suffix == ".part":
        raise WrongPackage(
            "it is not finished: the time bank that wrote it may still serve the city"
        )
    try:
        archive = zipfile.ZipFile(path)
        with archive.open("manifest.json") as file:
            raw = file.read(MANIFEST_MAX)
        with archive.open("manifest.note") as file:
            note = file.read(MANIFEST_MAX)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise WrongPackage(f"{path} is no whole package of a city") from error
    manifest = read_manifest(raw)
    check_signature(raw, note, manifest)
    return Package(archive, manifest, digest_of(raw))


def put_in_place(part: Path, path: Path) -> None:
    """The finished file under its name, also after a power cut."""
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
