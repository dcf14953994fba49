"""One swipe, one tap: what is asked of access, and what its answer means. Pure.

A device that asks again about the same card at once (a repeated request, a card that bounces)
asks about the same swipe: the same tap_id and the same instant, so that access answers the same
and records it once.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from copass_edge.gateway.settings import Direction, Secret

NAMESPACE = uuid5(NAMESPACE_URL, "urn:copass:gateway")
# Shorter than anybody takes to pass a door and come back; longer than a device's own retry.
SAME_SWIPE = timedelta(seconds=2)
SWIPES_KEPT = 1024
ANSWER_BYTES_MAX = 64 * 1024

# Reasons of the gateway's own, beside those of access.
Reason = str
UNREACHABLE: Reason = "access_unreachable"
REFUSED: Reason = "access_refused"
MALFORMED: Reason = "malformed_uid"
AMBIGUOUS: Reason = "ambiguous_uid"
TOO_MANY: Reason = "too_many_taps"
EGRESS: Reason = "exit"

WORDS: Mapping[Reason, tuple[str, str]] = {
    UNREACHABLE: ("Le service ne répond pas. Réessayez.", "The service is away. Try again."),
    REFUSED: ("Ce lecteur n'est pas en service.", "This reader is not in service."),
    MALFORMED: ("Cette carte ne se lit pas.", "This card cannot be read."),
    AMBIGUOUS: ("Cette carte ne se lit pas bien ici.", "This card cannot be told apart here."),
    TOO_MANY: ("Trop de lectures. Patientez.", "Too many taps. Please wait."),
    EGRESS: ("Au revoir, à bientôt.", "Goodbye, see you soon."),
}


@dataclass(frozen=True, slots=True)
class Point:
    """A device at a door, as access knows it. `name` is ours, for logs and rates."""

    name: str
    door_id: str
    reader_key: Secret
    direction: Direction = "in"


@dataclass(frozen=True, slots=True)
class Swipe:
    """A card held to a device, once. `mode` replay: the device decided by itself."""

    point: Point
    uid: str
    tap_id: str
    occurred_at: datetime
    mode: Literal["live", "replay"] = "live"

    def body(self) -> dict[str, Any]:
        return {
            "tap_id": self.tap_id,
            "door_id": self.point.door_id,
            "credential": {"type": "uid", "uid": self.uid},
            "direction": self.point.direction,
            "occurred_at": self.occurred_at.isoformat(),
            "mode": self.mode,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the device is told. `decision_id` None: access did not decide."""

    granted: bool
    reason: Reason
    fr: str
    en: str
    decision_id: str | None = None


def without_access(direction: Direction, reason: Reason) -> Verdict:
    """The verdict where access was not asked or did not answer: shut, except on the way out,
    which nothing of ours may bar."""
    granted = direction == "out"
    fr, en = WORDS[EGRESS if granted else reason]
    return Verdict(granted, EGRESS if granted else reason, fr, en)


def read_answer(swipe: Swipe, status: int, body: bytes) -> Verdict:
    """The verdict in an answer of access. Anything but a grant to the letter is none."""
    direction = swipe.point.direction
    if status >= 500:
        return without_access(direction, UNREACHABLE)
    try:
        answer = json.loads(body) if status == 200 else None
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case {
            "decision": "grant" | "deny" as decision,
            "reason": str() as reason,
            "unlock_ms": int() as unlock_ms,
            "message": {"fr": str() as fr, "en": str() as en},
            "decision_id": str() as decision_id,
        }:
            opens = decision == "grant" and (unlock_ms > 0 or swipe.mode == "replay")
            return Verdict(opens, reason, fr, en, decision_id)
    return without_access(direction, REFUSED)


def tap_id_of(*parts: object) -> str:
    """The same parts, the same tap_id, also after a restart."""
    return str(uuid5(NAMESPACE, "\x1f".join(str(part) for part in parts)))


@dataclass(slots=True)
class Swipes:
    """Remembers the last swipes, so that a repeat is the same one."""

    _last: OrderedDict[tuple[str, str], Swipe] = field(default_factory=OrderedDict)

    def of(self, point: Point, uid: str, now: datetime, new_id: UUID) -> Swipe:
        """The swipe of a card held to a device now; the one before if that was just now."""
        key = (point.name, uid)
        last = self._last.get(key)
        if last is not None and timedelta(0) <= now - last.occurred_at < SAME_SWIPE:
            return last
        swipe = Swipe(point, uid, str(new_id), now)
        self._last[key] = swipe
        self._last.move_to_end(key)
        if len(self._last) > SWIPES_KEPT:
            self._last.popitem(last=False)
        return swipe

    def last(self, point: Point, uid: str) -> Swipe | None:
        return self._last.get((point.name, uid))
