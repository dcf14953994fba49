"""The keys of a city, each handed over by the one before.

A list is [{"public_key": 64 hex digits, "from_size": integer, "statement": null | signed note}, …];
the first stands for itself, and every later one has the note by which it follows, signed by both:

    copass key handover v1
    copass/<city>
    number <which key the new one is, 2 for the second>
    old <64 hex digits>
    new <64 hex digits>
    size <from_size>
    until <epoch seconds: when the last message under the old key is believed>
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from copass_verify.merkle import SIZE_MAX
from copass_verify.notes import Verifier, WrongNote, open_note, to_verifier

ORIGIN_PREFIX = "copass/"
KEYS_MAX = 100
KEY = re.compile(r"[0-9a-f]{64}")
UNTIL = re.compile(r"^until (0|[1-9][0-9]{0,14})$", re.MULTILINE)


class WrongKeys(ValueError):
    """Why one key does not follow from another."""


@dataclass(frozen=True, slots=True)
class Key:
    """`from_size`: it signs the checkpoints of so many entries and more, until the next key does.
    `until`: epoch seconds up to which messages under it are believed; None for the newest."""

    public_key: bytes
    from_size: int = 0
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """All keys of a city that are believed, the oldest first; none: nothing of it is."""

    city: str
    keys: tuple[Key, ...]

    @property
    def name(self) -> str:
        return ORIGIN_PREFIX + self.city

    def verifiers(self, *, cosigns: bool = False) -> list[Verifier]:
        return [to_verifier(self.name, key.public_key, cosigns=cosigns) for key in self.keys]

    def number_at(self, size: int) -> int:
        """Which key signs the checkpoint of so many entries, from 1; there is at least one key."""
        return sum(key.from_size <= size for key in self.keys) or 1

    def number_of(self, public_key: bytes) -> int | None:
        known = [key.public_key for key in self.keys]
        return known.index(public_key) + 1 if public_key in known else None

    def begins_with(self, other: "Chain") -> bool:
        """Whether the other list is this one, or what this one was before a later hand-over."""
        shared = list(zip(self.keys, other.keys, strict=False))
        return len(other.keys) <= len(self.keys) and all(
            (one.public_key, one.from_size) == (two.public_key, two.from_size)
            for one, two in shared
        )


def read_chain(city: str, listed: Sequence[Any]) -> tuple[Chain, str | None]:
    """The keys that follow from each other, as far as they do, and why not further."""
    keys: list[Key] = []
    try:
        if not 1 <= len(listed) <= KEYS_MAX:
            raise WrongKeys(f"it has {len(listed)} keys, not 1 to {KEYS_MAX}")
        for number, item in enumerate(listed, start=1):
            key, statement = read_item(number, item)
            if number == 1:
                if key.from_size != 0 or statement is not None:
                    raise WrongKeys("its first key is said to follow another one")
                keys.append(key)
                continue
            until = check_handover(city, number, keys[-1], key, statement)
            if key.public_key in [known.public_key for known in keys]:
                raise WrongKeys(f"key {number} was there before")
            before = keys[-1]
            keys[-1] = Key(before.public_key, before.from_size, until)
            keys.append(key)
    except WrongKeys as error:
        return Chain(city, tuple(keys)), str(error)
    return Chain(city, tuple(keys)), None


def read_item(number: int, item: Any) -> tuple[Key, str | None]:
    if type(item) is not dict:
        raise WrongKeys(f"key {number} is no object")
    text, size, statement = (item.get(name) for name in ("public_key", "from_size", "statement"))
    if type(text) is not str or not KEY.fullmatch(text):
        raise WrongKeys(f"key {number} is not 64 hexadecimal digits")
    if type(size) is not int or not 0 <= size <= SIZE_MAX:
        raise WrongKeys(f"the size from which key {number} signs is none")
    if statement is not None and type(statement) is not str:
        raise WrongKeys(f"the hand-over to key {number} is no text")
    return Key(bytes.fromhex(text), size), statement


def check_handover(city: str, number: int, old: Key, new: Key, statement: str | None) -> int:
    """Until when messages under the old key are believed. Raises WrongKeys."""
    if statement is None:
        raise WrongKeys(f"the hand-over from key {number - 1} to key {number} is missing")
    if new.from_size < max(old.from_size, 1):
        raise WrongKeys(f"key {number} signs from {new.from_size} on, before key {number - 1}")
    name = ORIGIN_PREFIX + city
    both = [to_verifier(name, key.public_key) for key in (old, new)]
    try:
        note = open_note(statement.encode("utf-8", "surrogatepass"), both)
    except WrongNote as error:
        raise WrongKeys(f"the hand-over to key {number} is forged: {error}") from error
    if {signature.verifier for signature in note.signatures} != set(both):
        raise WrongKeys(f"the hand-over to key {number} is not signed by both keys")
    until = UNTIL.search(note.text)
    expected = (
        f"copass key handover v1\n{name}\nnumber {number}\nold {old.public_key.hex()}\n"
        f"new {new.public_key.hex()}\nsize {new.from_size}\n"
    )
    if until is None or note.text != f"{expected}{until[0]}\n":
        raise WrongKeys(f"the hand-over to key {number} is of something else")
    return int(until[1])
