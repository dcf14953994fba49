"""How two cities' books are compared, posting by posting. Pure: no await, no clock.

What one city posts on its clearing account with another, the other posts on its own with the
opposite sign, under the same id: a transfer as settled here and as arrived there, a netting. A city
keeps, of its own postings and of those that the other says in signed statements, the ones that have
no counterpart yet. Together they are exactly the difference between the two positions. Each is
either in flight, which the other steps of the protocol explain, or somebody is wrong.

No clock decides that: a statement answers a question, so it knows of everything that the other city
had done before the question. Only how long something may be in flight is a matter of time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

Side = Literal["ours", "theirs"]
Kind = Literal["settlement", "arrival", "netting", "other"]
# Seen from us: a transfer that we sent, one that came, a netting; what nothing explains.
Direction = Literal["out", "in", "netting", "other"]
# What we know of a thing of which the peer shows a posting: we wait to post it, did, refused it.
Known = Literal["waiting", "done", "refused", "unknown"]
Verdict = Literal[
    "in_flight",
    "late",
    "unknown_here",
    "unknown_there",
    "contradicted",
    "amount_differs",
    "unexplained",
]
AlarmKind = Literal[
    "late",
    "unknown_here",
    "unknown_there",
    "contradicted",
    "amount_differs",
    "unexplained",
    "position_differs",
    "went_back",
    "silent",
]
DIRECTIONS: dict[tuple[Side, Kind], Direction] = {
    ("ours", "settlement"): "out",
    ("theirs", "arrival"): "out",
    ("ours", "arrival"): "in",
    ("theirs", "settlement"): "in",
    ("ours", "netting"): "netting",
    ("theirs", "netting"): "netting",
}
IDS_MAX = 100

Key = tuple[Side, Direction, UUID]


@dataclass(frozen=True, slots=True)
class Movement:
    """One posting of a clearing account: its number there, and the id that both cities know."""

    version: int
    kind: Kind
    id: UUID
    minutes: int


@dataclass(frozen=True, slots=True)
class Open:
    """A posting without its counterpart. `since`: when it was posted here, or heard of."""

    side: Side
    direction: Direction
    id: UUID
    minutes: int
    version: int
    since: datetime

    @property
    def key(self) -> Key:
        return (self.side, self.direction, self.id)

    @property
    def counterpart(self) -> Key:
        return ("theirs" if self.side == "ours" else "ours", self.direction, self.id)


@dataclass(frozen=True, slots=True)
class Story:
    """How far two books were compared: after so many postings, each stood at so many minutes."""

    our_version: int = 0
    our_minutes: int = 0
    their_version: int = 0
    their_minutes: int = 0

    @property
    def difference_minutes(self) -> int:
        return self.our_minutes + self.their_minutes

    def told(self, side: Side, movements: Sequence[Movement]) -> "Story":
        """After these postings of one side. Raises ValueError when one is missing before them."""
        known = self.our_version if side == "ours" else self.their_version
        versions = [movement.version for movement in movements]
        if versions != list(range(known + 1, known + 1 + len(versions))):
            raise ValueError(f"postings {versions[:1]}… do not go on from {known}")
        minutes = sum(movement.minutes for movement in movements)
        if side == "ours":
            return replace(
                self,
                our_version=known + len(versions),
                our_minutes=self.our_minutes + minutes,
            )
        return replace(
            self,
            their_version=known + len(versions),
            their_minutes=self.their_minutes + minutes,
        )


@dataclass(frozen=True, slots=True)
class Said:
    """What the last statement of the peer allows to conclude. `asked_version`: our postings up to
    this one were there before it was asked for; `waiting`: the ids that it waits for, None when it
    did not name all."""

    asked_version: int
    waiting: frozenset[UUID] | None


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is wrong between two cities, of one kind: which ids (the first of them), how many."""

    kind: AlarmKind
    ids: tuple[UUID, ...]
    count: int
    minutes: int


def match(
    known: Mapping[Key, Open], side: Side, movements: Sequence[tuple[Movement, datetime]]
) -> tuple[list[Open], list[Key]]:
    """What is open more, and what no longer, when these postings of one side (and since when each
    is known) are known too.

    `known` has at least the counterparts of these movements that are open. Of one id that a side
    shows twice, the minutes add up, so that nothing is lost of the difference.
    """
    still = dict(known)
    added: dict[Key, Open] = {}
    removed: list[Key] = []
    for movement, since in movements:
        direction = DIRECTIONS.get((side, movement.kind), "other")
        one = Open(side, direction, movement.id, movement.minutes, movement.version, since)
        other = still.get(one.counterpart)
        if direction != "other" and other is not None and other.minutes == -one.minutes:
            removed.append(other.key)
            del still[other.key]
        else:
            earlier = added.get(one.key)
            minutes = one.minutes + (earlier.minutes if earlier else 0)
            added[one.key] = replace(one, minutes=minutes)
    return list(added.values()), removed


def judge(
    one: Open,
    *,
    now: datetime,
    overdue: timedelta,
    said: Said,
    known: Known,
    differs: bool,
) -> Verdict:
    """Whether a posting without a counterpart is in flight, and if not, why it cannot be.

    `known`: of what the peer posted, what we know of it. `differs`: the counterpart is there, of
    another number of minutes.
    """
    if one.direction == "other":
        return "unexplained"
    if differs:
        return "amount_differs"
    verdict = judge_theirs(one, known) if one.side == "theirs" else judge_ours(one, said)
    if verdict == "in_flight" and now - one.since >= overdue:
        return "late"
    return verdict


def judge_theirs(one: Open, known: Known) -> Verdict:
    # Refused here, or posted here once and matched with another posting of theirs.
    if known in ("refused", "done"):
        return "contradicted"
    # They end what they sent when they have heard that we did: before them, never after.
    if known == "unknown" or (one.direction == "in" and known == "waiting"):
        return "unknown_here"
    return "in_flight"


def judge_ours(one: Open, said: Said) -> Verdict:
    if one.version > said.asked_version:
        return "in_flight"  # posted after we asked: the statement need not know of it
    if one.direction == "out":
        return "unknown_there"  # they said that they took it in, before we could post it
    if said.waiting is not None and one.id not in said.waiting:
        return "unknown_there"  # they neither ended it nor wait for our answer
    return "in_flight"


def alarms_of(verdicts: Collection[tuple[Open, Verdict]]) -> list[Alarm]:
    """What is to be told, by kind; what is in flight is no alarm."""
    found: dict[AlarmKind, list[Open]] = {}
    for one, verdict in verdicts:
        if verdict != "in_flight":
            found.setdefault(verdict, []).append(one)
    return [
        Alarm(
            kind,
            tuple(sorted({one.id for one in those})[:IDS_MAX]),
            len({one.id for one in those}),
            sum(one.minutes for one in those),
        )
        for kind, those in sorted(found.items())
    ]
