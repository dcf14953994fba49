"""Transfers over HTTP."""

import asyncio
from typing import Any

import pytest

from common.ids import new_id


def problem(answer: Any) -> tuple[int, str, str | None]:
    """Status, code and first field of a problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    errors = body["errors"]
    return answer.status_code, body["code"], errors[0]["field"] if errors else None


async def test_minutes_move(bank: Any) -> None:
    anna = bank.caller("anna")
    answer = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 90, memo="Cuisine")
    assert answer.status_code == 201
    body = answer.json()
    assert body["kind"] == "transfer"
    assert body["city_id"] == "nantes"
    assert body["memo"] == "Cuisine"
    assert body["postings"] == [
        {"account_id": str(bank.accounts["anna"]), "minutes": -90},
        {"account_id": str(bank.accounts["bruno"]), "minutes": 90},
    ]
    assert await bank.balance("anna") == -90
    assert await bank.balance("bruno") == 90
    account = (await anna.get(f"accounts/{bank.accounts['anna']}")).json()
    assert (account["balance_minutes"], account["floor_minutes"], account["version"]) == (
        -90,
        -600,
        1,
    )
    assert body.pop("warnings") == []
    assert (await anna.get(f"transfers/{body['transfer_id']}")).json() == body


async def test_minutes_go_to_a_member_whose_account_one_does_not_know(bank: Any) -> None:
    anna = bank.caller("anna")
    body = {
        "transfer_id": str(new_id()),
        "from_account": str(bank.accounts["anna"]),
        "to_member": str(bank.members["bruno"]),
        "minutes": 30,
    }
    answer = await anna.post("transfers", body)
    assert answer.status_code == 201, answer.text
    assert await bank.balance("bruno") == 30
    # Sent again, by name or by account, it is the same transfer.
    assert (await anna.post("transfers", body)).json() == answer.json()
    by_account = {**body, "to_account": str(bank.accounts["bruno"])}
    del by_account["to_member"]
    assert (await anna.post("transfers", by_account)).json() == answer.json()
    assert await bank.balance("bruno") == 30


async def test_a_member_of_another_city_or_of_none_has_no_account_here(bank: Any) -> None:
    anna = bank.caller("anna")
    body = {"from_account": str(bank.accounts["anna"]), "minutes": 30}
    for stranger in (str(new_id()), str(bank.members["chloe"])):
        answer = await anna.post("transfers", {**body, "to_member": stranger})
        assert problem(answer) == (422, "account_not_found", "body.to_member")
    both = {**body, "to_member": str(bank.members["bruno"]), "to_account": str(new_id())}
    for wrong in (body, both):
        assert (await anna.post("transfers", wrong)).status_code == 422
    assert await bank.transfers() == 0


async def test_the_fact_is_told_in_the_same_transaction_without_the_memo(bank: Any) -> None:
    answer = await bank.caller("anna").pay(
        bank.accounts["anna"], bank.accounts["bruno"], 5, memo="secret"
    )
    row = await bank.pool.fetchrow("SELECT * FROM outbox WHERE topic = 'timebank.transfers.v1'")
    assert row["key"] == answer.json()["transfer_id"] == row["payload"]["transfer_id"]
    assert row["type"] == "timebank.transfer.posted.v1"
    assert not row["compacted"]
    assert row["payload"]["reverses"] is None
    assert "secret" not in str(row["payload"])


async def test_the_same_key_and_body_get_the_same_answer(bank: Any) -> None:
    anna = bank.caller("anna")
    first = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 90, key="k", memo="m")
    again = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 90, key="k", memo="m")
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    other = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 91, key="k", memo="m")
    assert problem(other) == (422, "idempotency_key_reused", "header.idempotency-key")
    other = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 90, key="k")
    assert problem(other)[1] == "idempotency_key_reused"
    assert await bank.transfers() == 1


async def test_the_same_transfer_id_is_posted_once(bank: Any) -> None:
    anna = bank.caller("anna")
    transfer_id = str(new_id())
    ends = bank.accounts["anna"], bank.accounts["bruno"]
    first = await anna.pay(*ends, 90, transfer_id=transfer_id)
    again = await anna.pay(*ends, 90, transfer_id=transfer_id)
    assert first.json()["transfer_id"] == transfer_id
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    other = await anna.pay(*ends, 30, transfer_id=transfer_id)
    assert problem(other) == (422, "transfer_id_reused", "body.transfer_id")
    # The key of a repeat is an answered key like any other.
    repeat = await anna.pay(*ends, 90, transfer_id=transfer_id, key="k2")
    assert repeat.json() == first.json()
    assert problem(await anna.pay(*ends, 1, key="k2"))[1] == "idempotency_key_reused"
    assert await bank.transfers() == 1


async def test_a_refused_request_leaves_its_key_free(bank: Any) -> None:
    anna = bank.caller("anna")
    ends = bank.accounts["anna"], bank.accounts["bruno"]
    assert problem(await anna.pay(*ends, 601, key="k"))[1] == "insufficient_time"
    assert (await anna.pay(*ends, 600, key="k")).status_code == 201


async def test_fifty_at_once_with_one_key_post_once(bank: Any) -> None:
    anna = bank.caller("anna")
    ends = bank.accounts["anna"], bank.accounts["bruno"]
    answers = await asyncio.gather(*(anna.pay(*ends, 7, key="once") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert await bank.transfers() == 1
    assert await bank.balance("anna") == -7


async def test_fifty_at_once_that_would_cross_the_floor_stop_at_it(bank: Any) -> None:
    anna = bank.caller("anna")
    ends = bank.accounts["anna"], bank.accounts["bruno"]
    answers = await asyncio.gather(*(anna.pay(*ends, 25) for _ in range(50)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [201] * 24 + [409] * 26
    assert await bank.balance("anna") == -600


async def test_a_crowd_of_good_and_bad_requests_is_sorted_out(bank: Any) -> None:
    """The bad ones share batches with the good, which must not notice."""
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    a, b = bank.accounts["anna"], bank.accounts["bruno"]
    good = [(anna.pay(a, b, 1), bruno.pay(b, a, 2)) for _ in range(30)]
    bad = [
        (anna.pay(b, a, 1), anna.pay(a, a, 1), anna.pay(a, bank.accounts["chloe"], 1))
        for _ in range(10)
    ]
    answers = await asyncio.gather(
        *(call for pair in good for call in pair), *(call for group in bad for call in group)
    )
    assert [answer.status_code for answer in answers[:60]] == [201] * 60
    assert [answer.status_code for answer in answers[60:]] == [403, 422, 422] * 10
    assert await bank.balance("anna") == 30
    assert await bank.transfers() == 60
    async with bank.pool.acquire() as conn:
        facts = await conn.fetchval(
            "SELECT count(*) FROM outbox WHERE topic = 'timebank.transfers.v1'"
        )
    assert facts == 60


NO_AMOUNTS = [
    "0",
    "-1",
    "1.5",
    "1.0",
    "true",
    '"90"',
    "9007199254740992",
    "1e400",
    "null",
    "[90]",
    "1e2",
    # No JSON at all.
    "NaN",
    "Infinity",
    "-Infinity",
    "1_000",
    "٩٠",
]


async def test_an_amount_that_is_none_is_refused(bank: Any, subtests: pytest.Subtests) -> None:
    for minutes in NO_AMOUNTS:
        with subtests.test(minutes):
            body = (
                f'{{"from_account": "{bank.accounts["anna"]}",'
                f' "to_account": "{bank.accounts["bruno"]}", "minutes": {minutes}}}'
            )
            answer = await bank.caller("anna").http.post(
                "/v1/transfers",
                content=body,
                headers={
                    "Authorization": f"Bearer {bank.caller('anna').token}",
                    "Idempotency-Key": str(new_id()),
                    "Content-Type": "application/json",
                },
            )
            assert 400 <= answer.status_code < 500
            assert "minutes" in answer.text or answer.json()["code"] == "malformed_json"
            assert await bank.transfers() == 0


async def test_what_cannot_be_is_refused_by_name(bank: Any) -> None:
    anna, steward = bank.caller("anna"), bank.caller("s", "nantes", "steward")
    a, b, c = (bank.accounts[name] for name in ("anna", "bruno", "chloe"))
    nobody = new_id()
    transfers = {
        (422, "same_account", "body.to_account"): anna.pay(a, a, 5),
        (404, "not_found", "body.from_account"): anna.pay(nobody, b, 5),
        (403, "forbidden", "body.from_account"): anna.pay(b, a, 5),
        (422, "account_not_found", "body.to_account"): anna.pay(a, nobody, 5),
        (422, "cross_city_not_available", "body.to_account"): anna.pay(a, c, 5),
        (409, "insufficient_time", "body.from_account"): anna.pay(a, b, 601),
        (422, "invalid", "body.from_account"): anna.pay("x", b, 5),
        (422, "invalid", "body.sudo"): anna.pay(a, b, 5, sudo=True),
        (422, "invalid", "body.memo"): anna.pay(a, b, 5, memo="x" * 2001),
    }
    for expected, call in transfers.items():
        assert problem(await call) == expected
    # Another city's account is as absent to its neighbours' steward as one that is not there.
    assert (await steward.pay(c, a, 5)).json() == (await steward.pay(nobody, a, 5)).json()
    assert await bank.transfers() == 0


async def test_a_closed_account_takes_no_part(bank: Any) -> None:
    await bank.pool.execute(
        "UPDATE account SET status = 'closed' WHERE account_id = $1", bank.accounts["bruno"]
    )
    a, b = bank.accounts["anna"], bank.accounts["bruno"]
    assert problem(await bank.caller("anna").pay(a, b, 5)) == (
        409,
        "account_closed",
        "body.to_account",
    )
    assert problem(await bank.caller("bruno").pay(b, a, 5)) == (
        409,
        "account_closed",
        "body.from_account",
    )


async def test_without_a_token_or_a_key_nothing_is_done(bank: Any) -> None:
    body = {
        "from_account": str(bank.accounts["anna"]),
        "to_account": str(bank.accounts["bruno"]),
        "minutes": 5,
    }
    assert problem(await bank.http.post("/v1/transfers", json=body))[0] in (400, 401)
    with_key = {"Idempotency-Key": "k"}
    answer = await bank.http.post("/v1/transfers", json=body, headers=with_key)
    assert problem(answer)[:2] == (401, "unauthenticated")
    with_token = {"Authorization": f"Bearer {bank.caller('anna').token}"}
    answer = await bank.http.post("/v1/transfers", json=body, headers=with_token)
    assert problem(answer)[:2] == (400, "idempotency_key_missing")
    assert await bank.transfers() == 0


async def test_a_steward_takes_a_transfer_back_once(bank: Any) -> None:
    anna, steward = bank.caller("anna"), bank.caller("s", "nantes", "steward")
    posted = (await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 90)).json()
    path = f"transfers/{posted['transfer_id']}/reverse"
    assert problem(await anna.post(path))[:2] == (403, "forbidden")
    stranger = bank.caller("s", "bourges", "steward")
    assert problem(await stranger.post(path))[:2] == (404, "not_found")
    answers = await asyncio.gather(*(steward.post(path) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    done = next(answer.json() for answer in answers if answer.status_code == 201)
    assert (done["kind"], done["reverses"]) == ("reversal", posted["transfer_id"])
    assert problem(await steward.post(path))[:2] == (409, "already_reversed")
    again = await steward.post(f"transfers/{done['transfer_id']}/reverse")
    assert problem(again)[:2] == (409, "not_reversible")
    assert problem(await steward.post(f"transfers/{new_id()}/reverse"))[0] == 404
    assert await bank.balance("anna") == await bank.balance("bruno") == 0


async def test_a_reversal_sent_again_gets_the_same_answer(bank: Any) -> None:
    anna, steward = bank.caller("anna"), bank.caller("s", "nantes", "steward")
    posted = (await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 90)).json()
    path = f"transfers/{posted['transfer_id']}/reverse"
    first, again = await steward.post(path, key="r"), await steward.post(path, key="r")
    assert (first.status_code, first.json()) == (201, again.json())
