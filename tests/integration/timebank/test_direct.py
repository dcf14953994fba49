"""What is answered in front of the framework is answered as the framework would."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

import timebank.app
from common.ids import new_id

# What differs between two requests that are otherwise the same.
OWN = ("transfer_id", "posted_at")


@pytest.fixture
async def framework(bank: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The same time bank with nothing in front of the framework."""
    monkeypatch.setattr(timebank.app, "DIRECT", {})
    app = timebank.app.create_app()
    app.state = bank.app.state
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://timebank.test") as http:
        yield http


@pytest.fixture(autouse=True)
def settings(bank: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DATABASE_URL": bank.dsn,
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "TOKEN_ISSUER": "https://identity.test",
        "JWKS_URL": "https://identity.test/jwks",
    }.items():
        monkeypatch.setenv(f"TIMEBANK_{name}", value)


def transfer(bank: Any, **changes: Any) -> dict[str, Any]:
    accounts = {"from_account": bank.accounts["anna"], "to_account": bank.accounts["bruno"]}
    whole = {name: str(account) for name, account in accounts.items()} | {"minutes": 5}
    return {name: value for name, value in {**whole, **changes}.items() if value is not ...}


BODIES: dict[str, dict[str, Any]] = {
    "posted": {"memo": "Soupe à l'oignon"},
    "near the floor": {"minutes": 590},
    "below the floor": {"minutes": 601},
    "no minutes": {"minutes": ...},
    "half a minute": {"minutes": 0.5},
    "minutes as text": {"minutes": "5"},
    "beyond all measure": {"minutes": 2**63},
    "to nobody": {"to_account": "00000000-0000-7000-8000-000000000000"},
    "no account": {"to_account": "anna"},
    "something else": {"colour": "red"},
    "a lie in the words": {"memo": "\u202egnorw"},
}
RAW: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "twice": b'{"minutes": 1, "minutes": 2}',
    "NaN": b'{"minutes": NaN}',
    "a list": b"[]",
    "null": b"null",
    "no UTF-8": b'{"memo": "\xff"}',
    "deep": b"[" * 100_000,
}
HEADERS: dict[str, dict[str, str | None]] = {
    "no token": {"Authorization": None},
    "another scheme": {"Authorization": "Basic YTpi"},
    "a bad token": {"Authorization": "Bearer a.b.c"},
    "no key": {"Idempotency-Key": None},
    "an empty key": {"Idempotency-Key": ""},
    "a key of other letters": {"Idempotency-Key": "clé"},
    "another media type": {"Content-Type": "text/plain"},
    "no media type": {"Content-Type": None},
}


async def answers(
    bank: Any,
    framework: httpx.AsyncClient,
    *,
    headers: dict[str, str | None] | None = None,
    **options: Any,
) -> list[tuple[int, str, Any]]:
    """Status, media type and body of both."""
    found = []
    for http in (bank.http, framework):
        sent = {
            "Authorization": f"Bearer {bank.caller('anna').token}",
            "Idempotency-Key": str(new_id()),
            "Content-Type": "application/json",
            **(headers or {}),
        }
        present = {
            name: value.encode("latin-1") for name, value in sent.items() if value is not None
        }
        request = http.build_request("POST", "/v1/transfers", headers=present, **options)
        answer = await http.send(request)
        body = answer.json()
        for name in OWN:
            body.pop(name, None)
        if answer.is_success:
            taken_back = await bank.caller("ste", "nantes", "steward").post(
                f"transfers/{answer.json()['transfer_id']}/reverse"
            )
            assert taken_back.status_code == 201
        assert "x-request-id" in answer.headers or answer.status_code == 500
        found.append((answer.status_code, answer.headers["content-type"], body))
    return found


async def test_the_same_answer_to_a_body(
    bank: Any, framework: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for name in BODIES:
        with subtests.test(name):
            ours, theirs = await answers(bank, framework, json=transfer(bank, **BODIES[name]))
            assert ours == theirs


async def test_the_same_answer_to_what_is_no_body(
    bank: Any, framework: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for name in RAW:
        with subtests.test(name):
            ours, theirs = await answers(bank, framework, content=RAW[name])
            assert ours == theirs
            assert ours[0] in (400, 422)


async def test_the_same_answer_to_headers(
    bank: Any, framework: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for name in HEADERS:
        with subtests.test(name):
            body = orjson.dumps(transfer(bank))
            ours, theirs = await answers(bank, framework, content=body, headers=HEADERS[name])
            assert ours == theirs
            assert ours[0] in (400, 401, 415)


async def test_what_nobody_foresaw_is_the_same_500(
    bank: Any, framework: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_request: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(bank.app.state.ledger, "post", fail)
    ours, theirs = await answers(bank, framework, json=transfer(bank))
    assert ours == theirs
    assert ours[0] == 500


async def test_a_database_that_is_away_is_the_same_503(
    bank: Any, framework: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_request: Any) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(bank.app.state.ledger, "post", fail)
    ours, theirs = await answers(bank, framework, json=transfer(bank))
    assert ours == theirs
    assert ours[0] == 503
