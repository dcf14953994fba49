"""A command sent twice is done once, also when both come at the same time."""

import asyncio

import pytest
from plumbing import NOW, bump

from common import db
from common.db import Conn
from common.idempotency import Answer, run_once
from common.problems import Problem


async def command(pool: db.Pool, key: str, request: bytes, pause_s: float = 0.0) -> Answer:
    async def work(conn: Conn) -> Answer:
        version = await bump(conn, "counter")
        await asyncio.sleep(pause_s)
        return Answer(201, {"version": version})

    return await run_once(
        pool, scope="me:POST /v1/bumps", key=key, request=request, now=NOW, command=work
    )


async def count(pool: db.Pool) -> int:
    return int(await pool.fetchval("SELECT COALESCE(max(version), 0) FROM counter"))


async def test_the_same_request_gets_the_first_answer(pool: db.Pool) -> None:
    first = await command(pool, "k", b"body")
    assert await command(pool, "k", b"body") == first
    assert await count(pool) == 1


async def test_another_request_under_the_same_key_is_refused(pool: db.Pool) -> None:
    await command(pool, "k", b"body")
    with pytest.raises(Problem) as refused:
        await command(pool, "k", b"other")
    assert (refused.value.status, refused.value.code) == (422, "idempotency_key_reused")
    assert await count(pool) == 1


async def test_of_fifty_at_once_one_is_done(pool: db.Pool) -> None:
    answers = await asyncio.gather(*(command(pool, "k", b"body", 0.02) for _ in range(50)))
    assert {answer.body["version"] for answer in answers} == {1}
    assert await count(pool) == 1


async def test_a_refused_command_leaves_nothing_and_may_be_tried_again(pool: db.Pool) -> None:
    async def refuse(conn: Conn) -> Answer:
        await bump(conn, "counter")
        raise Problem(409, "no", "Not now.")

    with pytest.raises(Problem):
        await run_once(
            pool, scope="me:POST /v1/bumps", key="k", request=b"body", now=NOW, command=refuse
        )
    assert await count(pool) == 0
    assert (await command(pool, "k", b"body")).status == 201


async def test_a_key_belongs_to_its_scope(pool: db.Pool) -> None:
    await command(pool, "k", b"body")

    async def work(conn: Conn) -> Answer:
        return Answer(201, {"version": await bump(conn, "counter")})

    answer = await run_once(
        pool, scope="you:POST /v1/bumps", key="k", request=b"body", now=NOW, command=work
    )
    assert answer.body == {"version": 2}
