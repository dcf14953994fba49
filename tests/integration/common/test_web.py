"""The edge of every service: what it refuses, and how it says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
import httpx
import pytest
from fastapi import APIRouter, FastAPI, Query

from common.fields import Body, Minutes, ShortText
from common.idempotency import IdempotencyKey
from common.problems import not_found
from common.web import BODY_BYTES_MAX, StrictRoute, create_app

router = APIRouter(route_class=StrictRoute)


class Thing(Body):
    name: ShortText
    minutes: Minutes


@router.post("/v1/things", status_code=201)
async def make(thing: Thing, key: IdempotencyKey) -> Thing:
    return thing


@router.get("/v1/things/{thing_id}")
async def read(thing_id: str, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> dict[str, int]:
    if thing_id == "bug":
        raise RuntimeError("secret inside")
    if thing_id == "away":
        raise asyncpg.CannotConnectNowError("starting up")
    if thing_id == "cut":
        raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2)")
    raise not_found("thing")


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


async def ready(_app: FastAPI) -> list[str]:
    return ["database"]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(title="t", version="1", routers=[router], lifespan=lifespan, ready=ready)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


GOOD = {"name": "a", "minutes": 1}
KEY = {"Idempotency-Key": "k"}


def check_problem(answer: httpx.Response, status: int, code: str) -> list[str]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"/problems/{code}"
    assert problem["title"]
    assert problem["detail"]
    return [error["field"] for error in problem["errors"]]


async def test_a_good_request_passes(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/things", json=GOOD, headers=KEY)
    assert (answer.status_code, answer.json()) == (201, GOOD)
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"minutes": 0}, "body.minutes"),
        ({"minutes": "1"}, "body.minutes"),
        ({"minutes": True}, "body.minutes"),
        ({"name": ""}, "body.name"),
        ({"extra": 1}, "body.extra"),
    ],
)
async def test_a_bad_field_is_named(
    client: httpx.AsyncClient, change: dict[str, object], field: str
) -> None:
    answer = await client.post("/v1/things", json={**GOOD, **change}, headers=KEY)
    assert check_problem(answer, 422, "invalid") == [field]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"minutes": NaN}', b'{"a":1,"a":2}', b"[" * 100_000, b'"\xff"']
)
async def test_a_body_that_is_no_json_is_a_client_error(
    client: httpx.AsyncClient, body: bytes
) -> None:
    answer = await client.post(
        "/v1/things", content=body, headers={**KEY, "Content-Type": "application/json"}
    )
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"


async def test_another_content_type_is_unsupported(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/things", content=b"{}", headers={**KEY, "Content-Type": "text/plain"}
    )
    assert check_problem(answer, 415, "unsupported_media_type") == ["header.content-type"]


async def test_a_huge_body_is_refused_declared_or_not(client: httpx.AsyncClient) -> None:
    huge = b" " * (BODY_BYTES_MAX + 1)
    json = {**KEY, "Content-Type": "application/json"}
    check_problem(
        await client.post("/v1/things", content=huge, headers=json), 413, "body_too_large"
    )

    async def drip() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield huge[: BODY_BYTES_MAX // 10]

    answer = await client.post("/v1/things", content=drip(), headers=json)
    check_problem(answer, 413, "body_too_large")


async def test_a_body_that_never_ends_is_given_up(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.web.BODY_SECONDS_MAX", 0.1)

    async def stall() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    answer = await client.post(
        "/v1/things", content=stall(), headers={**KEY, "Content-Type": "application/json"}
    )
    assert check_problem(answer, 408, "body_too_slow") == ["body"]


async def test_an_address_with_a_slash_too_many_is_no_other_address(
    client: httpx.AsyncClient,
) -> None:
    check_problem(await client.post("/v1/things/", json=GOOD, headers=KEY), 404, "not_found")


async def test_a_missing_or_malformed_idempotency_key_is_named(client: httpx.AsyncClient) -> None:
    fields = check_problem(
        await client.post("/v1/things", json=GOOD), 400, "idempotency_key_missing"
    )
    assert fields == ["header.idempotency-key"]
    for bad in ("", "a b", "x" * 201):
        answer = await client.post("/v1/things", json=GOOD, headers={"Idempotency-Key": bad})
        check_problem(answer, 400, "idempotency_key_malformed")
    twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await client.post("/v1/things", json=GOOD, headers=twice)
    check_problem(answer, 400, "idempotency_key_malformed")


async def test_the_rest_of_what_goes_wrong_is_a_problem_too(client: httpx.AsyncClient) -> None:
    check_problem(await client.get("/v1/things/x"), 404, "not_found")
    check_problem(await client.get("/nowhere"), 404, "not_found")
    check_problem(await client.delete("/v1/things/x"), 405, "method_not_allowed")
    check_problem(await client.get("/v1/things/x?limit=0"), 422, "invalid")
    check_problem(await client.get("/v1/things/x?q=%00"), 400, "malformed_address")
    check_problem(await client.get("/v1/things/away"), 503, "unavailable")
    check_problem(await client.get("/v1/things/cut"), 503, "unavailable")
    bug = await client.get("/v1/things/bug")
    check_problem(bug, 500, "internal")
    assert "secret" not in bug.text


async def test_health_says_what_is_missing(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).status_code == 200
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["missing"]) == (503, ["database"])
    metrics = await client.get("/metrics")
    assert "http_requests_total" in metrics.text
