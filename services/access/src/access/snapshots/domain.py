"""How long a snapshot speaks, and when a reader is given a new one. Pure.

A reader says which snapshot it has by its ETag, which holds all that is needed to tell whether
another is due; so the server remembers nothing of readers, and a poll that changes nothing reads a
row or two. What makes a door open to fewer people does not wait for the next snapshot: that goes
out as a change (`service.wait_for_changes`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ETAG = re.compile(r'"([0-9]{1,18})\.([0-9]{1,12})\.([0-9]{1,9})"')
# How long a reader waits before it asks for a new snapshot: a large one is not sent each minute
# because somebody somewhere got a card.
PAUSE_S = 60
CARDS_PER_PAUSE_S = 2000
# A snapshot that nothing changed is renewed at this part of its life.
RENEWALS_PER_LIFE = 4


@dataclass(frozen=True, slots=True)
class Version:
    """Which snapshot a reader has. `issued_at` in epoch seconds."""

    sequence: int
    issued_at: int
    cards: int

    def etag(self) -> str:
        return f'"{self.sequence}.{self.issued_at}.{self.cards}"'

    @property
    def pause_s(self) -> int:
        """How long this snapshot is good enough for a reader that hears of changes."""
        return PAUSE_S + self.cards // CARDS_PER_PAUSE_S


@dataclass(frozen=True, slots=True)
class Door:
    """A door as its snapshot shows it. The sequences say when policy and lockdown last changed."""

    door_id: str
    place_id: str
    city_id: str
    version: int
    readers: frozenset[str]
    policy: Mapping[str, Any]
    sequence: int
    is_locked_down: bool
    lockdown_sequence: int

    @property
    def is_for_visitors(self) -> bool:
        """Whether anybody may enter who neither lives nor works here."""
        return self.policy["kind"] == "public" and bool(self.policy["publics"])


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a snapshot speaks for visitors, and for residents and staff; what it may hold."""

    visitors_s: int
    household_s: int
    cards_max: int


def read_etag(header: str | None) -> Version | None:
    """The version in an If-None-Match header; None for none, or for one that is not of ours."""
    match = ETAG.fullmatch(header.strip()) if header else None
    return Version(*map(int, match.groups())) if match else None


def is_due(
    known: Version | None, door: Door, *, is_changed: bool, at: int, sequence: int, terms: Terms
) -> bool:
    """Whether a reader that has `known` gets a new snapshot as of `at` (epoch seconds).

    `is_changed`: a card or a member changed since. `sequence`: the newest there is.
    """
    if known is None or known.sequence > sequence or known.issued_at > at:
        return True  # none, or one of a past that this database does not have
    if max(door.sequence, door.lockdown_sequence) > known.sequence:
        return True
    age = at - known.issued_at
    return age >= terms.visitors_s // RENEWALS_PER_LIFE or (is_changed and age >= known.pause_s)
