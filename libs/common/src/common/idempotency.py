"""A command sent twice is done once.

After draft-ietf-httpapi-idempotency-key-header-07: the same key with the same request gets the
first answer, with another request 422, and a missing key is 400. The claim is a row of the same
transaction as the command, so it stands exactly when the command's effect does: a refused command
leaves nothing behind, and of two at once the second waits for the first.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Depends, Header, Request

from common.db import Conn, Pool
from common.problems import Problem

KEY = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command answered: the HTTP status and the JSON body."""

    status: int
    body: dict[str, Any]


async def check_key(
    request: Request,
    idempotency_key: Annotated[str | None, Header(max_length=10_000)] = None,
) -> str:
    """The header's value. Raises Problem 400 unless it is there once, 1 to 200 visible ASCII."""
    if idempotency_key is None:
        raise Problem(
            400,
            "idempotency_key_missing",
            "Send an Idempotency-Key header, and the same one when you try again.",
            field="header.idempotency-key",
        )
    is_single = len(request.headers.getlist("idempotency-key")) == 1
    if not is_single or not KEY.fullmatch(idempotency_key):
        raise Problem(
            400,
            "idempotency_key_malformed",
            "Send one Idempotency-Key of 1 to 200 visible ASCII characters.",
            field="header.idempotency-key",
        )
    return idempotency_key


IdempotencyKey = Annotated[str, Depends(check_key)]


def fingerprint(request: bytes | Mapping[str, Any]) -> bytes:
    """SHA-256 of a request; of a mapping, whatever the order of its keys."""
    if isinstance(request, bytes):
        return hashlib.sha256(request).digest()
    return hashlib.sha256(
        orjson.dumps(request, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
    ).digest()


async def run_once(
    pool: Pool,
    *,
    scope: str,
    key: str,
    request: bytes | Mapping[str, Any],
    now: datetime,
    command: Callable[[Conn], Awaitable[Answer]],
) -> Answer:
    """Run `command` in a transaction, once per (scope, key); afterwards give the same answer.

    `scope` names the caller and the route. Raises Problem 422 `idempotency_key_reused` when the
    key came with another request, and whatever the command raises, with nothing changed.
    """
    async with pool.acquire() as conn, conn.transaction():
        first = await claim(conn, scope=scope, key=key, request=request, now=now)
        if first is not None:
            return first
        answer = await command(conn)
        await conn.execute(
            "UPDATE idempotency SET status = $3, body = $4 WHERE scope = $1 AND key = $2",
            scope,
            key,
            answer.status,
            answer.body,
        )
        return answer


async def claim(
    conn: Conn, *, scope: str, key: str, request: bytes | Mapping[str, Any], now: datetime
) -> Answer | None:
    """Claim a key within a transaction: None when it is ours to run, else the first answer."""
    sha256 = fingerprint(request)
    claimed = await conn.fetchval(
        "INSERT INTO idempotency (scope, key, request_sha256, created_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT DO NOTHING RETURNING true",
        scope,
        key,
        sha256,
        now,
    )
    if claimed:
        return None
    row = await conn.fetchrow(
        "SELECT request_sha256, status, body FROM idempotency WHERE scope = $1 AND key = $2",
        scope,
        key,
    )
    if row is None or row["status"] is None:
        raise Problem(409, "request_in_progress", "The first request with this key is not done.")
    if row["request_sha256"] != sha256:
        raise Problem(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used with another request.",
            field="header.idempotency-key",
        )
    return Answer(row["status"], row["body"])


async def forget(conn: Conn, *, caller: str, ids: Sequence[UUID]) -> None:
    """Forget what was answered to a caller who is erased, and what others were told of them.

    `caller` begins the scopes of their commands, up to a colon; `ids` are those by which others'
    answers name them. Such an answer is emptied, and its request no longer known: a repeat is
    refused as another request, and does nothing.
    """
    await conn.execute("DELETE FROM idempotency WHERE starts_with(scope, $1 || ':')", caller)
    await conn.execute(
        "UPDATE idempotency SET request_sha256 = '', body = '{}' WHERE EXISTS"
        " (SELECT FROM unnest($1::text[]) AS id WHERE position(id IN body::text) > 0)",
        [str(each) for each in ids],
    )
