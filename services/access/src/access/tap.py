"""A tap in three steps: read what it rests on, decide, commit the decision.

To change *what* is decided, see `copass_tap.decision.decide`. This module brings it the facts, and
sees to it that an answered tap is a recorded tap: it is in the stream `taps` in the same atomic
script that checks that the facts still hold.
"""

import hashlib
import hmac
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from access import live_store, store
from access.messages import MESSAGES
from access.metrics import TAPS
from access.redis_pipe import RedisPipe
from access.snapshots.conflicts import note_use
from common.db import Pool
from common.ids import new_id_text
from common.problems import Problem, forbidden, not_found, unauthenticated
from copass_tap.decision import Decision, Facts, Reader, Tap, decide
from copass_tap.passes import PassCode
from copass_tap.signatures import is_own

# Facts that change between read and commit are read again; ten times in a row means a fault.
ATTEMPTS_MAX = 10
# A reader must not act on an answer later than this: a delayed "open" must not open for another.
ANSWER_VALID = timedelta(seconds=10)
AIRLOCK_VALID = timedelta(milliseconds=live_store.INTERLOCK_ANSWER_MS)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reader is told. `unlock_ms` is 0 for a denial, and for a tap that is long past."""

    tap_id: str
    decision_id: str
    reason: str
    granted: bool
    unlock_ms: int
    expires_at: str
    policy_version: int

    def body(self) -> dict[str, Any]:
        return {
            "decision": "grant" if self.granted else "deny",
            "reason": self.reason,
            "unlock_ms": self.unlock_ms,
            "message": MESSAGES[self.reason],
            "decision_id": self.decision_id,
            "expires_at": self.expires_at,
            "policy_version": self.policy_version,
        }


async def answer_tap(
    pipe: RedisPipe, pool: Pool, tap: Tap, *, reader_id: str, key_sha256: str, now: datetime
) -> Answer:
    """Decide a tap once, and give the same answer ever after.

    Raises Problem: 401 for a reader's key that is not good, 404 for a door that is not there or in
    another city, 403 for a door that is not this reader's, 422 for a tap_id that was used for
    another tap, 503 while the projection has not caught up.
    """
    for _ in range(ATTEMPTS_MAX):
        snapshot = await live_store.read(pipe, tap, reader_id, now)
        if not snapshot.ready:
            raise not_ready()
        reader = check_reader(snapshot.reader, key_sha256)
        if snapshot.previous is not None:
            return repeat(snapshot.previous, tap)
        facts = check_door(snapshot.facts, reader)
        if facts.card is not None and not is_own(tap, facts.card):
            facts = replace(facts, card=None, member=None)

        decision = decide(facts, tap, now)
        if facts.card is not None and tap.counter is not None:
            decision = await use_message(pool, tap, reader_id, decision, now)
        elif facts.card is not None and tap.code is not None:
            decision = await use_code(pool, tap, tap.code, reader_id, decision, now)

        answer = make_answer(tap, facts, decision, now)
        outcome, detail = await live_store.commit(
            pipe,
            tap,
            reader_id,
            snapshot,
            decision,
            answer=kept_answer(answer, tap),
            event=tap_event(tap, facts, reader, decision, answer, now),
            now=now,
        )
        if outcome == "repeated":  # the same tap, sent twice at once
            return repeat(detail, tap)
        if outcome == "recorded":
            TAPS[decision.reason].inc()
            return answer
    raise Problem(
        503,
        "busy",
        "Too much changes at this door now. Try again.",
        headers={"Retry-After": "1"},
    )


async def use_message(
    pool: Pool, tap: Tap, reader_id: str, decision: Decision, now: datetime
) -> Decision:
    """See to it that a card's message serves one tap, whatever was decided of it.

    In PostgreSQL, because a message must not open a door again when Redis was lost; a plain card
    has none, and its tap never waits for a disk. A message that a reader sends later may have been
    made before others that were used since; it was not used twice unless it is the last one.
    Raises asyncpg or connection errors when the database is away.
    """
    if tap.counter is None:
        return decision
    async with pool.acquire() as conn:
        if await store.claim_counter(
            conn,
            credential_hash=tap.credential_hash,
            counter=tap.counter,
            reader_id=UUID(reader_id),
            tap_id=UUID(tap.tap_id),
        ):
            await note_use(conn, tap, reader_id, now)
            return decision
        if tap.mode == "replay":  # doors that were alone cannot have known of each other
            await note_use(conn, tap, reader_id, now)
        last = await store.used_counter(conn, tap.credential_hash)
    late = tap.mode == "replay" and last is not None and last[0] > tap.counter
    return decision if late or tap.direction == "out" else Decision("credential_replayed")


async def use_code(
    pool: Pool, tap: Tap, code: PassCode, reader_id: str, decision: Decision, now: datetime
) -> Decision:
    """See to it that a code of a phone opens each door once, and not once a later one did.

    As use_message, for the same reason: a Redis that was lost is rebuilt in less time than a code
    is good for. A denial uses nothing up: who holds up the phone again hears the same reason, not
    another. Nor does a code of another moment on the way out, or a phone whose clock was ahead for
    a while would be shut out when it is right again.
    """
    at = int((now if tap.mode == "live" else tap.occurred_at).timestamp())
    if not decision.granted or not code.is_current(at):
        return decision
    async with pool.acquire() as conn:
        last = await store.use_code(
            conn,
            credential_hash=tap.credential_hash,
            door_id=UUID(tap.door_id),
            window=code.window,
            reader_id=UUID(reader_id),
            tap_id=UUID(tap.tap_id),
        )
    late = tap.mode == "replay" and last is not None and last > code.window
    is_used = last is not None and not late and tap.direction == "in"
    return Decision("credential_replayed") if is_used else decision


def check_reader(reader: Reader | None, key_sha256: str) -> Reader:
    """Raises Problem 401 unless the reader is known, not revoked, and the secret is its own."""
    expected = reader.key_sha256 if reader is not None else ""
    if not hmac.compare_digest(key_sha256, expected) or reader is None or not reader.active:
        raise unauthenticated("This is not the key of a reader in service.")
    return reader


def check_door(facts: Facts | None, reader: Reader) -> Facts:
    """Raises Problem 404 for no such door in the reader's city, 403 for one without this reader."""
    if facts is None or facts.door.city_id != reader.city_id:
        raise not_found("door", field="body.door_id")
    if reader.reader_id not in facts.door.readers:
        raise forbidden("This reader does not belong to this door.", field="body.door_id")
    return facts


def make_answer(tap: Tap, facts: Facts, decision: Decision, now: datetime) -> Answer:
    opens = decision.granted and tap.mode == "live"
    return Answer(
        tap_id=tap.tap_id,
        decision_id=new_id_text(),
        reason=decision.reason,
        granted=decision.granted,
        unlock_ms=facts.door.unlock_ms if opens else 0,
        expires_at=(now + (AIRLOCK_VALID if facts.door.interlock else ANSWER_VALID)).isoformat(),
        policy_version=facts.door.version,
    )


def tap_event(
    tap: Tap, facts: Facts, reader: Reader, decision: Decision, answer: Answer, now: datetime
) -> bytes:
    """The data of `access.tap.decided.v1`, all but the stream_id that Redis gives it."""
    card = facts.card
    return orjson.dumps(
        {
            "decision_id": answer.decision_id,
            "tap_id": tap.tap_id,
            "door_id": tap.door_id,
            "place_id": facts.door.place_id,
            "city_id": facts.door.city_id,
            "reader_id": reader.reader_id,
            "card_id": card.card_id if card else None,
            "member_id": card.member_id if card else None,
            "direction": tap.direction,
            "mode": tap.mode,
            "decision": "grant" if answer.granted else "deny",
            "reason": answer.reason,
            "occurred_at": tap.occurred_at,
            "decided_at": now,
            "policy_version": answer.policy_version,
            "zone": decision.zone,
            "flags": decision.flags,
        }
    )


def fingerprint(tap: Tap) -> str:
    """Tells a repeated tap from another tap with the same tap_id.

    Not by its mode: a reader that heard no answer to a live tap sends it again from its log, and
    then it is the one that was answered already, if it was.
    """
    content = (
        f"{tap.door_id} {tap.credential_type} {tap.credential_hash}"
        f" {tap.counter if tap.code is None else tap.code.window}"
        f" {tap.direction} {tap.occurred_at.timestamp()}"
    )
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def kept_answer(answer: Answer, tap: Tap) -> bytes:
    """An answer as Redis keeps it, to be given again."""
    return orjson.dumps(
        [
            fingerprint(tap),
            answer.decision_id,
            answer.reason,
            answer.granted,
            answer.unlock_ms,
            answer.expires_at,
            answer.policy_version,
        ]
    )


def repeat(kept: bytes, tap: Tap) -> Answer:
    """The answer given before. Raises Problem 422 when it was given to another tap."""
    first_fingerprint, *fields = orjson.loads(kept)
    if first_fingerprint != fingerprint(tap):
        raise Problem(
            422,
            "tap_id_reused",
            "This tap_id was used for another tap.",
            field="body.tap_id",
        )
    return Answer(tap.tap_id, *fields)


def not_ready() -> Problem:
    return Problem(
        503,
        "not_ready",
        "The service is still learning who may enter. The reader decides meanwhile.",
        headers={"Retry-After": "1"},
    )
