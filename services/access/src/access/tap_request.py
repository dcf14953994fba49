"""The body of a tap, read strictly: an exact shape, every error named by its field.

By hand because it is on the fastest path; routes.py publishes the same shape as a schema.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from access.credentials import (
    CODE_FIELDS,
    NTAG424_FIELDS,
    UID_FIELDS,
    CredentialReader,
    has_exactly,
)
from common.problems import FieldError, Problem
from copass_tap.decision import Tap, age_error

FIELDS = ("tap_id", "door_id", "credential", "direction", "occurred_at", "mode")
# The fields of each kind of credential, and the five texts beside it.
CREDENTIAL_FIELDS = {
    "uid": UID_FIELDS,
    "ntag424": NTAG424_FIELDS,
    "pass": CODE_FIELDS,
    "guest": CODE_FIELDS,
}
TEXTS = len(FIELDS) - 1

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})"
)


def read_tap(body: bytes, *, reader: CredentialReader, now: datetime) -> Tap:
    """The tap in a request body. Raises Problem 400 for no JSON, 422 naming the fields at fault."""
    try:
        fields = orjson.loads(body)
    except ValueError as error:
        raise Problem(400, "malformed_json", "The body is not valid JSON.", field="body") from error
    tap = check_tap(fields, reader=reader, now=now)
    # A body with exactly these fields has two quotes for each name and each text. A repeated name
    # or a hidden quote makes more, and a tap needs none: so no slow parser must look for those.
    pairs = len(FIELDS) + TEXTS + 2 * len(CREDENTIAL_FIELDS[tap.credential_type])
    if body.count(b'"') != 2 * pairs:
        raise Problem(400, "malformed_json", "A field name appears twice.", field="body")
    return tap


def check_tap(fields: Any, *, reader: CredentialReader, now: datetime, where: str = "body") -> Tap:
    """The tap in a parsed JSON value. Raises Problem 422 naming every field at fault."""
    errors: list[FieldError] = []
    if not has_exactly(fields, FIELDS, where, errors):
        raise invalid(errors)
    tap_id, door_id = fields["tap_id"], fields["door_id"]
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
    credential = reader.read(fields["credential"], f"{where}.credential", errors)
    if occurred_at is None or credential is None or errors:
        raise invalid(errors)

    late = age_error(mode, occurred_at, now)
    if late:
        raise invalid([FieldError(f"{where}.occurred_at", late)])
    return Tap(
        tap_id=tap_id.lower(),
        door_id=door_id.lower(),
        credential_type=credential.type,
        credential_hash=credential.hash,
        direction=direction,
        occurred_at=occurred_at,
        mode=mode,
        counter=credential.counter,
        code=credential.code,
    )


def read_instant(text: Any) -> datetime | None:
    """RFC 3339 with an offset and at most microseconds, in UTC; None for anything else."""
    if not (isinstance(text, str) and INSTANT.fullmatch(text)):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):  # 30 February, an offset of 99 hours, before the year 1
        return None


def invalid(errors: Sequence[FieldError]) -> Problem:
    detail = "; ".join(f"{error.field} {error.message}" for error in errors[:5])
    return Problem(422, "invalid", detail, errors=errors)
