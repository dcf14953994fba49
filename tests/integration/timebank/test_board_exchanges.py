"""Exchanges: a request, an agreement that holds minutes, and an end that gives or frees them."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from board_world import ask, assert_sound, day, held, notices, problem, publish, step

from common.clock import utc_now
from common.ids import new_id
from timebank.board import worker


async def test_a_service_becomes_a_contribution(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    listing_id = await publish(anna, price_minutes=90)
    exchange_id = await ask(bruno, listing_id, message="Samedi ?")
    assert (await held(bank, "bruno"), await bank.transfers()) == (0, 0)
    agreed = await step(anna, exchange_id, "agree")
    assert (agreed["status"], agreed["message"]) == ("agreed", "Samedi ?")
    assert (await held(bank, "bruno"), await bank.transfers()) == (90, 0)
    await assert_sound(bank)
    done = await step(bruno, exchange_id, "done")
    assert (done["status"], done["transfer_id"]) == ("done", None)
    assert (await held(bank, "bruno"), await bank.balance("bruno")) == (0, -90)
    assert await bank.balance("anna") == 90
    contribution = await bank.pool.fetchrow("SELECT * FROM contribution")
    assert str(contribution["contribution_id"]) == done["contribution_id"]
    assert (contribution["giver_id"], contribution["status"]) == (
        bank.members["anna"],
        "confirmed",
    )
    told = [item for item in await notices(bank) if item[1].startswith("exchange")]
    assert told == [
        ("anna", "exchange.requested"),
        ("bruno", "exchange.agreed"),
        ("anna", "exchange.done"),
    ]
    await assert_sound(bank)


async def test_a_need_is_answered_and_its_owner_gives(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    listing_id = await publish(anna, kind="need", price_minutes=60)
    exchange_id = await ask(bruno, listing_id, minutes=45)
    # Who proposes themself is not the one to agree, and not the one to say that it is done.
    for name in ("agree", "done"):
        answer = await bruno.post(f"exchanges/{exchange_id}/{name}")
        assert problem(answer) == (403, "forbidden")
    await step(anna, exchange_id, "agree")
    assert await held(bank, "anna") == 45
    await step(anna, exchange_id, "done")
    assert (await bank.balance("anna"), await bank.balance("bruno")) == (-45, 45)
    await assert_sound(bank)


async def test_a_free_service_moves_no_minutes(bank: Any) -> None:
    exchange_id = await ask(bank.caller("bruno"), await publish(bank.caller("anna")))
    await step(bank.caller("anna"), exchange_id, "agree")
    done = await step(bank.caller("bruno"), exchange_id, "done")
    assert (done["contribution_id"], done["price_hold_id"], await bank.transfers()) == (
        None,
        None,
        0,
    )


async def lend(bank: Any, **fields: Any) -> str:
    """Anna lends Bruno a drill from today for three days: 30 minutes, and 300 as a deposit."""
    listing_id = await publish(
        bank.caller("anna"), what="lend", category="tools", price_minutes=30,
        deposit_minutes=300, **fields,
    )  # fmt: skip
    return await ask(bank.caller("bruno"), listing_id, **{"from": day(0), "until": day(2)})


async def test_a_loan_comes_back_and_frees_its_deposit(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    exchange_id = await lend(bank)
    await step(anna, exchange_id, "agree")
    assert await held(bank, "bruno") == 330
    # Who lends does not say that it was taken; who borrows does not say that it came back.
    assert problem(await anna.post(f"exchanges/{exchange_id}/handed-over")) == (403, "forbidden")
    out = await step(bruno, exchange_id, "handed-over")
    assert (out["status"], await held(bank, "bruno"), await bank.balance("anna")) == (
        "handed_over",
        300,
        30,
    )
    assert problem(await bruno.post(f"exchanges/{exchange_id}/returned")) == (403, "forbidden")
    assert problem(await bruno.post(f"exchanges/{exchange_id}/cancel")) == (409, "wrong_step")
    assert problem(await bruno.post(f"exchanges/{exchange_id}/done")) == (409, "wrong_step")
    back = await step(anna, exchange_id, "returned")
    assert (back["status"], await held(bank, "bruno"), await bank.balance("bruno")) == (
        "returned",
        0,
        -30,
    )
    assert back["ended_at"] is not None
    await assert_sound(bank)


async def test_a_damage_takes_at_most_what_was_claimed(bank: Any) -> None:
    before = 0
    for ruled in (None, 0, 50, 120):
        await claim_and_settle(bank, ruled)
        before -= 30 + (120 if ruled is None else ruled)
        assert (await held(bank, "bruno"), await bank.balance("bruno")) == (0, before)
    await assert_sound(bank)


async def claim_and_settle(bank: Any, ruled: int | None) -> None:
    """120 of a deposit of 300 are claimed: accepted, or ruled."""
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    exchange_id = await lend(bank)
    await step(anna, exchange_id, "agree")
    assert problem(
        await anna.post(f"exchanges/{exchange_id}/damaged", {"minutes": 1})
    ) == (409, "wrong_step")  # fmt: skip
    await step(bruno, exchange_id, "handed-over")
    for minutes, refusal in ((301, "exceeds_deposit"), (0, "invalid"), (True, "invalid")):
        answer = await anna.post(f"exchanges/{exchange_id}/damaged", {"minutes": minutes})
        assert problem(answer) == (422, refusal)
        assert answer.json()["errors"][0]["field"] == "body.minutes"
    claim = {"minutes": 120, "note": "Le mandrin est cassé"}
    assert (await step(anna, exchange_id, "damaged", claim))["status"] == "claimed"
    mediator = bank.caller("mediator", "nantes", "mediator")
    if ruled is None:
        assert problem(await anna.post(f"exchanges/{exchange_id}/accept")) == (403, "forbidden")
        settled = await step(bruno, exchange_id, "accept")
        given = 120
    else:
        answers = [
            await caller.post(f"exchanges/{exchange_id}/rule", {"minutes": ruled})
            for caller in (
                bank.caller("anna", "nantes", "mediator"),
                bank.caller("bruno", "nantes", "mediator"),
                bank.caller("steward", "nantes", "steward"),
                bank.caller("chloe", "bourges", "mediator"),
            )
        ]
        assert [problem(answer) for answer in answers] == [(403, "forbidden")] * 3 + [
            (404, "not_found")
        ]
        answer = await mediator.post(f"exchanges/{exchange_id}/rule", {"minutes": 121})
        assert problem(answer) == (422, "exceeds_deposit")
        settled = await step(mediator, exchange_id, "rule", {"minutes": ruled, "note": "Usure"})
        assert (settled["claim_note"], settled["message"]) == ("Le mandrin est cassé", None)
        given = ruled
    assert (settled["status"], settled["settled_minutes"]) == ("settled", given)
    assert problem(await anna.post(f"exchanges/{exchange_id}/returned")) == (409, "wrong_step")


async def test_a_claim_can_be_dropped(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    exchange_id = await lend(bank)
    await step(anna, exchange_id, "agree")
    await step(bruno, exchange_id, "handed-over")
    await step(anna, exchange_id, "damaged", {"minutes": 120})
    assert (await step(anna, exchange_id, "returned"))["settled_minutes"] is None
    assert (await held(bank, "bruno"), await bank.balance("bruno")) == (0, -30)


async def test_what_belongs_to_an_exchange_is_held_until_it_ends(bank: Any) -> None:
    """A hold of an exchange is not ended by its sides, who could so escape a deposit."""
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    exchange_id = await lend(bank)
    agreed = await step(anna, exchange_id, "agree")
    for hold_id in (agreed["price_hold_id"], agreed["deposit_hold_id"]):
        steward = bank.caller("steward", "nantes", "steward")
        for caller in (bruno, steward):
            answer = await caller.post(f"holds/{hold_id}/post", {"minutes": 1})
            assert problem(answer) == (409, "hold_bound")
        assert problem(await anna.post(f"holds/{hold_id}/void")) == (409, "hold_bound")
    assert await held(bank, "bruno") == 330


async def test_who_has_not_the_time_is_not_agreed_with(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    listing_id = await publish(anna, what="lend", price_minutes=301, deposit_minutes=300)
    exchange_id = await ask(bruno, listing_id, **{"from": day(0), "until": day(1)})
    answer = await anna.post(f"exchanges/{exchange_id}/agree")
    assert problem(answer) == (409, "insufficient_time")
    # The balance of who receives is not the owner's to know.
    assert "600" not in answer.text
    assert (await held(bank, "bruno"), await bank.transfers()) == (0, 0)
    assert (await anna.get(f"exchanges/{exchange_id}")).json()["status"] == "requested"
    await assert_sound(bank)


async def test_an_agreement_that_is_cancelled_frees_all(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    for caller in (anna, bruno):
        exchange_id = await lend(bank)
        await step(anna, exchange_id, "agree")
        assert (await step(caller, exchange_id, "cancel"))["status"] == "cancelled"
        assert await held(bank, "bruno") == 0
    listing_id = await publish(anna, price_minutes=30)
    exchange_id = await ask(bruno, listing_id)
    assert problem(await anna.post(f"exchanges/{exchange_id}/cancel")) == (403, "forbidden")
    assert (await step(bruno, exchange_id, "cancel"))["status"] == "cancelled"
    declined = await ask(bruno, listing_id)
    assert problem(await bruno.post(f"exchanges/{declined}/decline")) == (403, "forbidden")
    assert (await step(anna, declined, "decline"))["status"] == "declined"
    await assert_sound(bank)


async def test_a_surplus_is_not_given_more_often_than_it_is_there(bank: Any) -> None:
    anna = bank.caller("anna")
    for name in ("dora", "emil", "fanny", "gus"):
        await bank.join(name, "nantes")
    names = ["bruno", "dora", "emil", "fanny", "gus"]
    listing_id = await publish(anna, what="surplus", category="food", quantity=3, price_minutes=5)
    too_many = await bank.caller("bruno").post(f"listings/{listing_id}/requests", {"quantity": 4})
    assert problem(too_many) == (409, "nothing_left")
    ids = [await ask(bank.caller(name), listing_id) for name in names]
    answers = await asyncio.gather(*(anna.post(f"exchanges/{item}/agree") for item in ids))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 409, 409]
    agreed = [item for item, answer in zip(ids, answers, strict=True) if answer.is_success]
    left = (await anna.get(f"listings/{listing_id}")).json()["quantity_left"]
    assert left == 0
    # Nothing is left, so nobody finds it; one given back, they do again.
    assert (await bank.caller("gus").get("listings")).json()["items"] == []
    assert problem(await anna.patch(f"listings/{listing_id}", {"quantity": 2})) == (
        409,
        "already_given",
    )
    await step(anna, agreed[0], "cancel")
    assert len((await bank.caller("gus").get("listings")).json()["items"]) == 1
    taker = names[ids.index(agreed[1])]
    done = await step(bank.caller(taker), agreed[1], "done")
    assert (done["contribution_id"], await bank.balance("anna")) == (None, 5)
    assert (await anna.get(f"listings/{listing_id}")).json()["quantity_left"] == 1
    await assert_sound(bank)


async def test_one_object_is_in_one_place(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    for name in ("dora", "emil"):
        await bank.join(name, "nantes")
    listing_id = await publish(anna, what="lend")

    async def borrow(name: str, from_: int, until: int) -> str:
        return await ask(bank.caller(name), listing_id, **{"from": day(from_), "until": day(until)})

    first, second = await borrow("bruno", 0, 2), await borrow("dora", 2, 3)
    answers = await asyncio.gather(
        anna.post(f"exchanges/{first}/agree"), anna.post(f"exchanges/{second}/agree")
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    if not answers[0].is_success:
        first, second = second, first
        bruno = bank.caller("dora")
    refused = await anna.post(f"exchanges/{second}/agree")
    assert problem(refused) == (409, "object_taken")
    third = await borrow("emil", 4, 5)
    await step(anna, third, "agree")
    await step(bruno, first, "handed-over")
    # Still out with the first: not to be handed over to the third.
    answer = await bank.caller("emil").post(f"exchanges/{third}/handed-over")
    assert problem(answer) == (409, "object_out")
    await step(anna, first, "returned")
    await step(bank.caller("emil"), third, "handed-over")


async def test_between_cities_only_what_is_free(bank: Any) -> None:
    anna, chloe = bank.caller("anna"), bank.caller("chloe", "bourges")
    priced = await publish(anna, price_minutes=10, visibility="federation")
    deposit = await publish(anna, what="lend", deposit_minutes=10, visibility="federation")
    free = await publish(anna, visibility="federation")
    days = {"from": day(0), "until": day(1)}
    for listing_id, body in ((priced, {}), (deposit, days), (free, {"minutes": 5})):
        answer = await chloe.post(f"listings/{listing_id}/requests", body)
        assert problem(answer) == (422, "cross_city_not_available")
    exchange_id = await ask(chloe, free, message="Bonjour de Bourges")
    await step(anna, exchange_id, "agree")
    assert (await step(chloe, exchange_id, "done"))["status"] == "done"
    assert await bank.transfers() == 0


async def test_an_organisation_lists_through_a_steward_who_is_not_the_other_side(bank: Any) -> None:
    organisation_id = str(new_id())
    steward, anna = bank.caller("bruno", "nantes", "steward"), bank.caller("anna")
    other = bank.caller("steward", "nantes", "steward")
    body = {"kind": "offer", "what": "lend", "title": "Remorque", "category": "tools",
            "organisation_id": organisation_id, "price_minutes": 20}  # fmt: skip
    assert problem(await anna.post("listings", body)) == (403, "forbidden")
    assert problem(await steward.post("listings", body)) == (422, "unknown_organisation")
    account = {"city_id": "nantes", "owner_id": organisation_id}
    assert (await steward.post("accounts", account)).status_code == 201
    answer = await steward.post("listings", body)
    assert answer.json()["owner_id"] == organisation_id
    exchange_id = await ask(
        steward, answer.json()["listing_id"], **{"from": day(0), "until": day(0)}
    )
    assert problem(await steward.post(f"exchanges/{exchange_id}/agree")) == (403, "forbidden")
    await step(other, exchange_id, "agree")
    await step(steward, exchange_id, "handed-over")
    assert problem(await steward.post(f"exchanges/{exchange_id}/returned")) == (403, "forbidden")
    await step(other, exchange_id, "returned")
    assert await bank.balance("bruno") == -20
    of_it = await other.get("exchanges", organisation_id=organisation_id)
    assert [item["exchange_id"] for item in of_it.json()["items"]] == [exchange_id]
    assert (await anna.get("exchanges", organisation_id=organisation_id)).json()["items"] == []


async def test_who_is_no_party_learns_nothing(bank: Any) -> None:
    await bank.join("dora", "nantes")
    exchange_id = await ask(
        bank.caller("bruno"), await publish(bank.caller("anna")), message="Entre nous"
    )
    dora, chloe = bank.caller("dora"), bank.caller("chloe", "bourges")
    names = ("agree", "decline", "cancel", "done", "handed-over", "returned", "accept")
    for name in names:
        assert problem(await dora.post(f"exchanges/{exchange_id}/{name}")) == (403, "forbidden")
        assert problem(await chloe.post(f"exchanges/{exchange_id}/{name}")) == (404, "not_found")
        assert problem(await chloe.post(f"exchanges/{new_id()}/{name}")) == (404, "not_found")
    assert problem(await dora.get(f"exchanges/{exchange_id}")) == (403, "forbidden")
    hidden, absent = [await chloe.get(f"exchanges/{item}") for item in (exchange_id, new_id())]
    assert (hidden.status_code, hidden.json()) == (404, absent.json())
    assert (await dora.get("exchanges")).json()["items"] == []
    steward = bank.caller("steward", "nantes", "steward")
    assert (await steward.get(f"exchanges/{exchange_id}")).json()["message"] is None
    mine = (await bank.caller("anna").get("exchanges")).json()["items"]
    assert [item["message"] for item in mine] == ["Entre nous"]


async def test_the_same_step_sent_twice_is_done_once(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    listing_id = await publish(anna, price_minutes=90)
    exchange_id = await ask(bruno, listing_id)
    await step(anna, exchange_id, "agree")
    answers = await asyncio.gather(
        *(bruno.post(f"exchanges/{exchange_id}/done", key="once") for _ in range(4)),
        *(bruno.post(f"exchanges/{exchange_id}/done") for _ in range(3)),
        anna.post(f"exchanges/{exchange_id}/cancel"),
    )
    codes = [answer.status_code for answer in answers]
    assert set(codes[:4]) in ({200}, {409})
    assert codes.count(200) in {1, 4}
    contributions = await bank.pool.fetchval("SELECT count(*) FROM contribution")
    assert (contributions, await bank.balance("anna")) in ((1, 90), (0, 0))
    assert await held(bank, "bruno") == 0
    await assert_sound(bank)


async def test_requests_are_few_and_one_for_each(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    listing_id = await publish(anna)
    assert problem(await anna.post(f"listings/{listing_id}/requests", {})) == (422, "own_listing")
    await ask(bruno, listing_id)
    again = await bruno.post(f"listings/{listing_id}/requests", {})
    assert problem(again) == (409, "already_requested")
    await bank.pool.execute(
        "INSERT INTO exchange (exchange_id, listing_id, city_id, kind, what, category,"
        " requester_id, requester_city_id, giver_kind, giver_id, receiver_kind, receiver_id,"
        " minutes, deposit_minutes, status, created_at, version)"
        " SELECT gen_random_uuid(), $1, 'nantes', 'offer', 'service', 'repair', id, 'nantes',"
        " 'member', $2, 'member', id, 0, 0, 'requested', now(), 1"
        " FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 19)) others",
        listing_id,
        bank.members["anna"],
    )
    await bank.join("dora", "nantes")
    full = await bank.caller("dora").post(f"listings/{listing_id}/requests", {})
    assert problem(full) == (409, "too_many_requests")


async def test_wrong_days_are_named(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    for_ever = await publish(anna, what="lend")
    five_days = await publish(anna, what="lend", available_until=day(5))
    service = await publish(anna)
    wrong: list[tuple[str, dict[str, int], str]] = [
        (for_ever, {"until": 1}, "from"),
        (for_ever, {"from": 1}, "until"),
        (for_ever, {"from": -1, "until": 1}, "from"),
        (for_ever, {"from": 2, "until": 1}, "until"),
        (for_ever, {"from": 0, "until": 276}, "until"),
        (five_days, {"from": 0, "until": 6}, "until"),
        (service, {"from": 0, "until": 1}, "from"),
    ]
    for listing_id, fields, field in wrong:
        body = {name: day(days) for name, days in fields.items()}
        answer = await bruno.post(f"listings/{listing_id}/requests", body)
        assert (fields, problem(answer)) == (fields, (422, "wrong_days"))
        assert answer.json()["errors"][0]["field"] == f"body.{field}"


async def test_time_ends_what_waits_and_tells_of_what_is_late(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    ending = await publish(anna, title="Jusqu'à demain", available_until=day(1))
    waiting = await ask(bruno, ending)
    long_ago = await ask(bruno, await publish(anna))
    loan = await lend(bank)
    await step(anna, loan, "agree")
    await step(bruno, loan, "handed-over")
    now = utc_now()
    for done in (worker.end_listings, worker.end_requests, worker.tell_of_late):
        assert await done(bank.pool, now) == 0
    later = now + timedelta(days=3)
    assert await worker.end_listings(bank.pool, later) == 1
    assert await worker.tell_of_late(bank.pool, later) == 1
    assert await worker.tell_of_late(bank.pool, later) == 0
    assert (await anna.get(f"listings/{ending}")).json()["closed_because"] == "expired"
    assert (await bruno.get(f"exchanges/{waiting}")).json()["status"] == "declined"
    assert await worker.end_requests(bank.pool, now + timedelta(days=61)) == 1
    assert (await bruno.get(f"exchanges/{long_ago}")).json()["status"] == "expired"
    # Late is told to both, and nothing else: who lent decides.
    told = [name for name, kind in await notices(bank) if kind == "exchange.late"]
    assert told == ["anna", "bruno"]
    assert await held(bank, "bruno") == 300
    # Time decides, not whether the worker has come by.
    open_ = await publish(anna, available_until=day(1))
    bank.app.state.clock = lambda: later
    assert (await bruno.get("listings")).json()["items"] != []
    found = {hit["listing"]["listing_id"] for hit in (await bruno.get("listings")).json()["items"]}
    assert open_ not in found
    refused = await bruno.post(f"listings/{open_}/requests", {})
    assert problem(refused) == (409, "listing_closed")


async def test_a_deposit_that_expired_gives_nothing_and_the_exchange_still_ends(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    exchange_id = await lend(bank)
    await step(anna, exchange_id, "agree")
    await step(bruno, exchange_id, "handed-over")
    await step(anna, exchange_id, "damaged", {"minutes": 120})
    bank.app.state.clock = lambda: utc_now() + timedelta(days=100)
    assert problem(await bruno.post(f"exchanges/{exchange_id}/accept")) == (409, "hold_expired")
    mediator = bank.caller("mediator", "nantes", "mediator")
    settled = await step(mediator, exchange_id, "rule", {"minutes": 0})
    assert (settled["status"], await held(bank, "bruno")) == ("settled", 0)
    await assert_sound(bank)


async def test_a_price_whose_hold_expired_is_still_given(bank: Any) -> None:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    exchange_id = await ask(bruno, await publish(anna, price_minutes=40))
    await step(anna, exchange_id, "agree")
    bank.app.state.clock = lambda: utc_now() + timedelta(days=366)
    done = await step(bruno, exchange_id, "done")
    assert (done["status"], await bank.balance("anna")) == ("done", 40)
    await assert_sound(bank)


async def test_the_database_refuses_what_the_code_might_forget(bank: Any, owner: Any) -> None:
    anna = bank.caller("anna")
    loan = await lend(bank)
    await step(anna, loan, "agree")
    surplus = await publish(anna, what="surplus", quantity=1)
    service = await ask(bank.caller("bruno"), await publish(anna))
    refused: list[tuple[str, str, Any]] = [
        ("UPDATE exchange SET status = 'returned', ended_at = now() WHERE exchange_id = $1",
         "does not go from", loan),
        ("UPDATE exchange SET status = 'cancelled', ended_at = now() WHERE exchange_id = $1",
         "still holds minutes", loan),
        ("UPDATE exchange SET ended_at = now() WHERE exchange_id = $1", "end_has_a_time", loan),
        ("UPDATE exchange SET claimed_minutes = 301 WHERE exchange_id = $1",
         "claim_within_deposit", loan),
        ("UPDATE exchange SET receiver_id = giver_id WHERE exchange_id = $1",
         "between_two", loan),
        ("UPDATE exchange SET requester_city_id = 'bourges' WHERE exchange_id = $1",
         "crosses_cities_free", loan),
        ("UPDATE exchange SET status = 'handed_over' WHERE exchange_id = $1",
         "does not go from", service),
        ("DELETE FROM exchange WHERE exchange_id = $1", "only grows", loan),
        ("UPDATE listing SET taken = 2 WHERE listing_id = $1", "gives_what_it_has", surplus),
        ("UPDATE listing SET taken = 1 WHERE listing_id = $1", "has not given", surplus),
        ("UPDATE listing SET title = NULL WHERE listing_id = $1", "open_has_words", surplus),
        ("UPDATE listing SET latitude = 47.12345, longitude = 0 WHERE listing_id = $1",
         "latitude", surplus),
    ]  # fmt: skip
    for statement, reason, about in refused:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=reason):
            await owner.execute(statement, about)
