"""The body of a tap, read strictly: an exact shape, every error named by its field.

By hand because it is on the fastest path; routes.py publishes the same shape as a schema.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from access import domain
from access.domain import Tap
from common.problems import FieldError, Problem

FIELDS = ("tap_id", "door_id", "credential", "direction", "occurred_at", "mode")
CREDENTIAL_FIELDS = ("type", "uid")
# A body with exactly these fields holds 8 names and 7 texts, two quotes each. A repeated name or a
# hidden quote makes more of them, and a tap needs none: so no slow parser must look for those.
QUOTES = 2 * (len(FIELDS) + len(CREDENTIAL_FIELDS) + 7)

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})"
)


def read_tap(body: bytes, *, pepper: bytes, now: datetime) -> Tap:
    """The tap in a request body. Raises Problem 400 for no JSON, 422 naming the fields at fault."""
    try:
        fields = orjson.loads(body)
    except ValueError as error:
        raise Problem(400, "malformed_json", "The body is not valid JSON.", field="body") from error
    tap = check_tap(fields, pepper=pepper, now=now)
    if body.count(b'"') != QUOTES:
        raise Problem(400, "malformed_json", "A field name appears twice.", field="body")
    return tap


def check_tap(fields: Any, *, pepper: bytes, now: datetime, where: str = "body") -> Tap:
    """The tap in a parsed JSON value. Raises Problem 422 naming every field at fault."""
    errors: list[FieldError] = []
    if not has_exactly(fields, FIELDS, where, errors):
        raise invalid(errors)
    tap_id, door_id, credential = fields["tap_id"], fields["door_id"], fields["credential"]
    direction, occurred_text, mode = fields["direction"], fields["occurred_at"], fields["mode"]

    for name, value in (("tap_id", tap_id), ("door_id", door_id)):
        if not (isinstance(value, str) and UUID.fullmatch(value)):
            errors.append(FieldError(f"{where}.{name}", "must be a UUID"))
    if direction not in ("in", "out"):
        errors.append(FieldError(f"{where}.direction", "must be in or out"))
    if mode not in ("live", "replay"):
        errors.append(FieldError(f"{where}.mode", "must be live or replay"))
    occurred_at = read_instant(occurred_text)
    if occurred_at is None:
        message = "must be a date and time with an offset, as in 2026-11-22T08:30:00Z"
        errors.append(FieldError(f"{where}.occurred_at", message))
    uid = read_uid(credential, f"{where}.credential", errors)
    if occurred_at is None or uid is None or errors:
        raise invalid(errors)

    late = domain.age_error(mode, occurred_at, now)
    if late:
        raise invalid([FieldError(f"{where}.occurred_at", late)])
    return Tap(
        tap_id=tap_id.lower(),
        door_id=door_id.lower(),
        credential_type="uid",
        credential_hash=domain.credential_hash(pepper, "uid", uid),
        direction=direction,
        occurred_at=occurred_at,
        mode=mode,
    )


def has_exactly(value: Any, names: Sequence[str], where: str, errors: list[FieldError]) -> bool:
    """Whether `value` is an object with just these fields; if not, `errors` says why."""
    if not isinstance(value, dict):
        errors.append(FieldError(where, "must be an object"))
        return False
    if len(value) == len(names) and all(name in value for name in names):
        return True
    errors += [FieldError(f"{where}.{name}", "is missing") for name in names if name not in value]
    errors += [
        FieldError(f"{where}.{shown(name)}", "is not a field of a tap")
        for name in list(value)[:20]
        if name not in names
    ]
    return False


def shown(name: str) -> str:
    """A name from outside, short and printable."""
    return ascii(name[:40])[1:-1]


def read_instant(text: Any) -> datetime | None:
    """RFC 3339 with an offset and at most microseconds, in UTC; None for anything else."""
    if not (isinstance(text, str) and INSTANT.fullmatch(text)):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):  # 30 February, an offset of 99 hours, before the year 1
        return None


def read_uid(credential: Any, where: str, errors: list[FieldError]) -> str | None:
    """The normalised UID of a credential, or None and the reasons in `errors`."""
    if isinstance(credential, dict) and credential.get("type", "uid") != "uid":
        errors.append(FieldError(f"{where}.type", "must be uid"))
        return None
    if not has_exactly(credential, CREDENTIAL_FIELDS, where, errors):
        return None
    uid = credential["uid"]
    normal = domain.normalise_uid(uid) if isinstance(uid, str) else None
    if normal is None:
        message = "must be a card's own UID: 4, 7 or 10 bytes in hexadecimal"
        errors.append(FieldError(f"{where}.uid", message))
    return normal


def invalid(errors: Sequence[FieldError]) -> Problem:
    detail = "; ".join(f"{error.field} {error.message}" for error in errors[:5])
    return Problem(422, "invalid", detail, errors=errors)
