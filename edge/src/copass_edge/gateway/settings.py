"""What the gateway is told: one TOML file, checked whole before anything starts.

Secrets are not in it but named: `env:NAME` or `file:/path`. They are read once, and never logged.
"""

import hashlib
import hmac
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from copass_edge.gateway.wiegand import CardFormat
from copass_tap.credentials import normalise_uid

SECRET_BYTES_MAX = 4096
CARDS_MAX = 5000
READER_KEY = re.compile(r"[0-9a-fA-F-]{36}\.[A-Za-z0-9_-]{16,200}")

Direction = Literal["in", "out"]
SecretRef = Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Address = Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}:[0-9]{1,5}$")]


class ConfigError(Exception):
    """The file cannot be used; the text names the field and never holds a secret."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that no traceback, log or repr shows."""

    _value: str

    def __repr__(self) -> str:
        return "Secret(…)"

    def reveal(self) -> str:
        return self._value

    def is_same(self, other: str) -> bool:
        """In a time that does not tell how much of it was right."""
        return hmac.compare_digest(
            hashlib.sha256(self._value.encode()).digest(),
            hashlib.sha256(other.encode("utf-8", "surrogateescape")).digest(),
        )


def read_secret(reference: str) -> Secret:
    """The secret that `env:NAME` or `file:/path` names. Raises ConfigError."""
    kind, _, rest = reference.partition(":")
    if kind == "env":
        value = os.environ.get(rest, "")
    else:
        try:
            with Path(rest).open("rb") as file:
                value = file.read(SECRET_BYTES_MAX).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{reference}: cannot be read ({type(error).__name__})") from error
    value = value.strip()
    if not value:
        raise ConfigError(f"{reference}: is empty")
    return Secret(value)


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(Part):
    """Of each device: one that is noisy uses up its own and nobody else's."""

    taps_per_second: Annotated[float, Field(gt=0, le=100)] = 5
    burst: Annotated[int, Field(ge=1, le=100)] = 10


class Http(Part):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8090


class Mqtt(Part):
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    username: Name
    password: SecretRef
    tls: bool = False
    ca_file: str | None = None


class Device(Part):
    """Where a device stands, and by which reader key access knows it."""

    door_id: UUID
    reader_key: SecretRef
    direction: Direction = "in"


class Fabman(Device):
    name: Name
    token: SecretRef
    kind: Literal["door", "machine"] = "door"


class AcNode(Device):
    node: Annotated[int, Field(ge=0, le=2**31 - 1)]
    key: SecretRef


class Fabomatic(Device):
    machine: Name
    label: Annotated[str, Field(max_length=40)]
    machine_type: Annotated[int, Field(ge=0, le=1000)] = 1
    logoff_minutes: Annotated[int, Field(ge=1, le=1440)] = 30


class EspRfid(Device):
    """`topic`: as set on the device, without /send. `address`: its IPv4, which commands must name.

    `uid_form`: `padded` where it prints each byte with two digits, `unpadded` where a small byte
    loses its zero. `uid_bytes` and `uid_prefix` say which cards there are, to tell them apart.
    `utc_offset_minutes`: what its clock is ahead of UTC. `users`: the file of cards to keep on it.
    """

    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", max_length=100)]
    address: Annotated[str, Field(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$")]
    uid_form: Literal["padded", "unpadded"] = "unpadded"
    uid_bytes: Annotated[tuple[Literal[4, 7, 10], ...], Field(min_length=1)] = (7,)
    uid_prefix: Annotated[str, Field(pattern=r"^([0-9A-F]{2})*$", max_length=20)] = ""
    utc_offset_minutes: Annotated[int, Field(ge=-840, le=840)] = 0
    users: str | None = None
    users_valid_hours: Annotated[int, Field(ge=1, le=24 * 7)] = 24


class UhppoteDoor(Device):
    number: Annotated[int, Field(ge=1, le=4)]


class Controller(Part):
    """`uids`: `number` takes the card number for a 4-byte UID, which only 34 bits can hold whole;
    `listed` looks for the one card in the file `cards` that shows this number."""

    serial: Annotated[int, Field(ge=1, le=2**32 - 1)]
    address: Address
    bits: Literal[26, 34] = 34
    byte_order: Literal["as_read", "reversed"] = "as_read"
    keep: Literal["first", "last"] = "first"
    uids: Literal["number", "listed"] = "number"
    cards: str | None = None
    door: Annotated[tuple[UhppoteDoor, ...], Field(min_length=1, max_length=4)]

    @model_validator(mode="after")
    def check_numbers(self) -> "Controller":
        if self.uids == "number" and self.bits != 34:
            raise ValueError("26 bits hold three bytes of a UID: list the cards (uids = 'listed')")
        if (self.uids == "listed") != (self.cards is not None):
            raise ValueError("cards is the file of uids = 'listed', and only of that")
        unique("door.number", (door.number for door in self.door))
        return self

    @property
    def card_format(self) -> CardFormat:
        return CardFormat(self.bits, self.byte_order, self.keep)


class Uhppote(Part):
    """`listen`: where events arrive. `advertise`: the same, as the controllers reach it; left out,
    their listener is not touched."""

    listen: Address = "0.0.0.0:60001"
    advertise: Address | None = None
    controller: Annotated[tuple[Controller, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def check_serials(self) -> "Uhppote":
        unique("controller.serial", (one.serial for one in self.controller))
        return self


class Config(Part):
    access_url: Annotated[str, Field(pattern=r"^https?://[^/?#]+/?$")]
    limits: Limits = Limits()
    http: Http | None = None
    mqtt: Mqtt | None = None
    fabman: tuple[Fabman, ...] = ()
    acnode: tuple[AcNode, ...] = ()
    fabomatic: tuple[Fabomatic, ...] = ()
    esprfid: tuple[EspRfid, ...] = ()
    uhppote: Uhppote | None = None

    @model_validator(mode="after")
    def check_devices(self) -> "Config":
        unique("fabman.name", (one.name for one in self.fabman))
        unique("acnode.node", (one.node for one in self.acnode))
        unique("fabomatic.machine", (one.machine for one in self.fabomatic))
        unique("esprfid.topic", (one.topic for one in self.esprfid))
        if (self.fabman or self.acnode) and self.http is None:
            raise ValueError("[http] is missing: fabman and acnode devices speak to it")
        if (self.fabomatic or self.esprfid) and self.mqtt is None:
            raise ValueError("[mqtt] is missing: fabomatic and esprfid devices speak through it")
        if not (self.fabman or self.acnode or self.fabomatic or self.esprfid or self.uhppote):
            raise ValueError("no device is configured")
        return self


def unique(name: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name} {value} is there twice")
        seen.add(value)


def load_config(path: Path) -> Config:
    """Raises ConfigError with a line for each field at fault, without the values."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in fault['loc']) or 'file'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigError("\n".join(lines)) from error


def reader_key(reference: str) -> Secret:
    """Raises ConfigError unless it is `<reader_id>.<secret>`."""
    key = read_secret(reference)
    if not READER_KEY.fullmatch(key.reveal()):
        raise ConfigError(f"{reference}: is no reader key <reader_id>.<secret>")
    return key


@dataclass(frozen=True, slots=True)
class Cards:
    """UIDs that an operator listed, and those that are listed as withdrawn."""

    kept: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()


def load_cards(path: Path) -> Cards:
    """One UID in hexadecimal on each line, with `-` before it when the card was withdrawn; `#`
    begins a comment. Raises ConfigError."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    kept: dict[str, bool] = {}
    for number, line in enumerate(lines, start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        uid = normalise_uid(text.removeprefix("-").strip())
        if uid is None:
            raise ConfigError(f"{path}:{number}: is no card's own UID")
        if uid in kept:
            raise ConfigError(f"{path}:{number}: is there twice")
        kept[uid] = not text.startswith("-")
        if len(kept) > CARDS_MAX:
            raise ConfigError(f"{path}: more than {CARDS_MAX} cards")
    return Cards(
        tuple(uid for uid, is_kept in kept.items() if is_kept),
        tuple(uid for uid, is_kept in kept.items() if not is_kept),
    )
