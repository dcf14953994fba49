"""Minutes between cities of two time banks, over HTTP and messages that the test carries."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from clearing_world import Federation, Letter, two_time_banks

from common.ids import new_id
from timebank import verify
from timebank.privacy import service as privacy


@pytest.fixture
async def federation(
    make_database: Callable[[str, Path], Awaitable[str]],
) -> AsyncIterator[Federation]:
    async with two_time_banks(make_database) as made:
        await made.make_keys()
        yield made


@pytest.fixture
async def agreed(federation: Federation) -> Federation:
    await federation.agree("nantes", "bourges")
    return federation


async def test_minutes_cross_between_two_time_banks(agreed: Federation) -> None:
    sent = await agreed.send("anna", "nantes", "chloe", "bourges", 90, memo="for the roof")
    assert (sent["state"], sent["overdue"], sent["peer_city_id"]) == ("sent", False, "bourges")
    assert await agreed.balance("nantes", "anna") == -90
    assert await agreed.minutes("nantes", "in_transit", "bourges") == 90
    await agreed.deliver()
    assert await agreed.state("nantes", sent["transfer_id"]) == "settled"
    assert await agreed.balance("bourges", "chloe") == 90
    assert await agreed.minutes("nantes", "clearing", "bourges") == 90
    assert await agreed.minutes("bourges", "clearing", "nantes") == -90
    await agreed.check_books()
    for bank in agreed.each:
        reports = await verify.verify_books(bank.dsn)
        assert all(report.sound for report in reports)


async def test_minutes_cross_within_one_time_bank_the_same_way(federation: Federation) -> None:
    await federation.agree("nantes", "brest")
    sent = await federation.send("anna", "nantes", "denis", "brest", 30)
    await federation.deliver()
    assert await federation.state("nantes", sent["transfer_id"]) == "settled"
    assert await federation.balance("brest", "denis") == 30
    await federation.check_books()


async def test_who_is_told_what(agreed: Federation) -> None:
    await agreed.send("anna", "nantes", "chloe", "bourges", 90, memo="for the roof")
    await agreed.deliver()
    kinds = {}
    for city, name in (("nantes", "anna"), ("bourges", "chloe")):
        bank = agreed.bank(city)
        rows = await bank.pool.fetch(
            "SELECT payload FROM outbox WHERE topic = 'timebank.notices.v1' AND key = $1",
            str(bank.members[name]),
        )
        kinds[name] = [row["payload"]["kind"] for row in rows]
        payloads = await bank.pool.fetch("SELECT payload::text AS text FROM outbox")
        assert not [row for row in payloads if "roof" in row["text"]]
    assert kinds == {"anna": ["clearing.settled"], "chloe": ["clearing.received"]}


async def test_nobody_there_and_the_minutes_come_back(agreed: Federation) -> None:
    agreed.bank("bourges").members["nobody"] = new_id()
    sent = await agreed.send("anna", "nantes", "nobody", "bourges", 90)
    await agreed.deliver()
    answer = await agreed.caller("anna", "nantes").get(f"clearing/transfers/{sent['transfer_id']}")
    assert (answer.json()["state"], answer.json()["reason"]) == ("returned", "payee_not_found")
    assert await agreed.balance("nantes", "anna") == 0
    await agreed.check_books()


async def test_every_message_lost_once_and_heard_thrice(agreed: Federation) -> None:
    sent = await agreed.send("anna", "nantes", "chloe", "bourges", 90)
    for _ in range(3):  # the prepare is lost, and the first question, and the first answer
        await agreed.collect()
        agreed.letters.clear()
        agreed.clock.advance(minutes=15)
        assert await agreed.ask_again() == 1
    await agreed.collect()
    questions = list(agreed.letters)
    agreed.letters = questions * 3
    await agreed.deliver()
    assert await agreed.balance("bourges", "chloe") == 90
    assert await agreed.state("nantes", sent["transfer_id"]) == "settled"
    await agreed.check_books()


async def test_after_the_deadline_the_destination_refuses_and_the_source_hears_it(
    agreed: Federation,
) -> None:
    sent = await agreed.send("anna", "nantes", "chloe", "bourges", 90)
    await agreed.collect()
    agreed.letters.clear()
    agreed.clock.advance(hours=25)
    anna = agreed.caller("anna", "nantes")
    view = (await anna.get(f"clearing/transfers/{sent['transfer_id']}")).json()
    # Shown as overdue, and nothing is guessed.
    assert (view["state"], view["overdue"]) == ("sent", True)
    assert await agreed.balance("nantes", "anna") == -90
    await agreed.ask_again()
    await agreed.deliver()
    view = (await anna.get(f"clearing/transfers/{sent['transfer_id']}")).json()
    assert (view["state"], view["reason"]) == ("returned", "deadline_passed")
    await agreed.check_books()


async def test_limits_hold_on_both_sides(federation: Federation) -> None:
    await federation.agree("nantes", "bourges", limit_out_minutes=100, limit_in_minutes=600)
    await federation.send("anna", "nantes", "chloe", "bourges", 60)
    refused = await federation.caller("anna", "nantes").post(
        "clearing/transfers",
        {
            "from_account": str(federation.bank("nantes").accounts["anna"]),
            "to": {
                "city_id": "bourges",
                "member_id": str(federation.bank("bourges").members["chloe"]),
            },
            "minutes": 41,
        },
    )
    # What is still on its way counts.
    assert (refused.status_code, refused.json()["code"]) == (409, "limit_reached")
    assert refused.json()["errors"][0]["field"] == "body.minutes"
    await federation.send("anna", "nantes", "chloe", "bourges", 40)
    await federation.deliver()
    assert await federation.minutes("bourges", "clearing", "nantes") == -100
    await federation.check_books()


async def test_levies_are_taken_and_come_back(federation: Federation) -> None:
    await federation.agree("nantes", "bourges", levy_out_permille=100, b_levy_in_permille=50)
    sent = await federation.send("anna", "nantes", "chloe", "bourges", 100)
    await federation.deliver()
    assert await federation.balance("nantes", "anna") == -110
    assert await federation.balance("bourges", "chloe") == 95
    assert await federation.minutes("nantes", "commons") == 10
    assert await federation.minutes("bourges", "commons") == 5
    path = f"clearing/transfers/{sent['transfer_id']}/reversal"
    one = await federation.steward("bourges").post(path)
    assert one.json()["agreed"]
    assert not one.json()["peer_agreed"]
    await federation.deliver()
    assert await federation.balance("bourges", "chloe") == 95  # one city alone changes nothing
    other = await federation.steward("nantes").post(path)
    assert other.status_code == 200
    await federation.deliver()
    for city, name in (("nantes", "anna"), ("bourges", "chloe")):
        assert await federation.balance(city, name) == 0
        assert await federation.minutes(city, "commons") == 0
    await federation.check_books()
    again = await federation.steward("bourges").post(path)
    assert (again.status_code, again.json()["code"]) == (409, "already_reversed")


async def test_a_reversal_waits_for_minutes_that_were_spent(agreed: Federation) -> None:
    centre = agreed.bank("bourges")
    await centre.join("emile", "bourges")
    sent = await agreed.send("anna", "nantes", "chloe", "bourges", 500)
    await agreed.deliver()
    chloe = agreed.caller("chloe", "bourges")
    spent = await chloe.pay(centre.accounts["chloe"], centre.accounts["emile"], 1000)
    assert spent.status_code == 201
    path = f"clearing/transfers/{sent['transfer_id']}/reversal"
    await agreed.steward("nantes").post(path)
    await agreed.deliver()
    waiting = await agreed.steward("bourges").post(path)
    assert waiting.json()["problem"] == "insufficient_time"
    emile = agreed.caller("emile", "bourges")
    await emile.pay(centre.accounts["emile"], centre.accounts["chloe"], 1000)
    done = await agreed.steward("bourges").post(path)
    assert done.json()["reversal_id"]
    await agreed.deliver()
    assert await agreed.balance("nantes", "anna") == 0
    await agreed.check_books()


async def test_a_suspended_agreement_stops_new_transfers_alone(agreed: Federation) -> None:
    sent = await agreed.send("anna", "nantes", "chloe", "bourges", 50)
    held = await agreed.steward("bourges").post("agreements/bourges/nantes/suspend")
    assert held.json()["state"] == "suspended"
    await agreed.deliver()
    # The prepare came while it was suspended: refused, and back with the payer.
    assert await agreed.state("nantes", sent["transfer_id"]) == "returned"
    seen = await agreed.steward("nantes").get("agreements", city_id="nantes")
    assert seen.json()["items"][0]["suspended_by_peer"]
    body = {
        "from_account": str(agreed.bank("nantes").accounts["anna"]),
        "to": {"city_id": "bourges", "member_id": str(agreed.bank("bourges").members["chloe"])},
        "minutes": 1,
    }
    refused = await agreed.caller("anna", "nantes").post("clearing/transfers", body)
    assert (refused.status_code, refused.json()["code"]) == (409, "no_agreement")
    # Only who suspended it lets it go on.
    wrong = await agreed.steward("nantes").post("agreements/nantes/bourges/resume")
    assert (wrong.status_code, wrong.json()["code"]) == (409, "agreement_state")
    await agreed.steward("bourges").post("agreements/bourges/nantes/resume")
    await agreed.deliver()
    await agreed.send("anna", "nantes", "chloe", "bourges", 50)
    await agreed.deliver()
    assert await agreed.balance("bourges", "chloe") == 50
    history = await agreed.steward("bourges").get("agreements/bourges/nantes/history")
    changes = [item["change"] for item in history.json()["items"]]
    assert changes == ["proposed", "accepted", "suspended", "resumed"]


@pytest.mark.parametrize("forge", ["signature", "minutes", "sender", "shape"])
async def test_a_forged_message_changes_nothing(agreed: Federation, forge: str) -> None:
    await agreed.send("anna", "nantes", "chloe", "bourges", 50)
    await agreed.collect()
    (letter,) = agreed.letters
    raw: dict[str, Any] = dict(letter.data)
    if forge == "signature":
        raw["signature"] = "A" * 86 + "=="
    elif forge == "minutes":
        raw["body"] = {**raw["body"], "minutes": 500}
    elif forge == "sender":
        raw["from_city"] = "brest"
    else:
        raw["body"] = {**raw["body"], "payee": "everybody"}
    agreed.letters = [Letter(letter.topic, raw)]
    if forge == "shape":
        with pytest.raises(ValueError, match="payee"):
            await agreed.deliver()
    else:
        await agreed.deliver()
    assert await agreed.balance("bourges", "chloe") == 0
    rows = await agreed.bank("bourges").pool.fetchval("SELECT count(*) FROM clearing_in")
    assert rows == 0


async def test_a_key_that_changes_is_not_believed(agreed: Federation) -> None:
    """Somebody else says to be Nantes: the key that the stewards of Bourges saw is what counts."""
    await agreed.bank("bourges").pool.execute(
        "UPDATE peer_city SET public_key = $1 WHERE city_id = 'nantes'", b"x" * 32
    )
    await agreed.send("anna", "nantes", "chloe", "bourges", 50)
    await agreed.deliver()
    assert await agreed.balance("bourges", "chloe") == 50


async def test_who_may_do_what(agreed: Federation) -> None:
    sent = await agreed.send("anna", "nantes", "chloe", "bourges", 50)
    await agreed.deliver()
    path = f"clearing/transfers/{sent['transfer_id']}"
    denis = agreed.caller("denis", "brest", "steward")
    neighbour = agreed.caller(str(new_id()), "nantes")
    auditor = agreed.bank("nantes").caller(str(new_id()), None, "auditor")
    assert (await denis.get(path)).status_code == 404
    assert (await neighbour.get(path)).status_code == 404
    assert (await auditor.get(path)).json()["memo"] is None
    assert (await denis.post(f"{path}/reversal")).status_code == 404
    assert (await neighbour.post(f"{path}/reversal")).status_code == 403
    assert (await neighbour.post("agreements/nantes/bourges/suspend")).status_code == 403
    assert (await denis.post("agreements/nantes/bourges/suspend")).status_code == 404
    assert (await denis.get("agreements", city_id="nantes")).status_code == 404
    assert (await neighbour.get("clearing/positions")).status_code == 403
    assert (await denis.get("clearing/positions", city_id="nantes")).status_code == 404
    body = {
        "from_account": str(agreed.bank("nantes").accounts["anna"]),
        "to": {"city_id": "bourges", "member_id": str(new_id())},
        "minutes": 1,
    }
    assert (await neighbour.post("clearing/transfers", body)).status_code == 403
    assert (await denis.post("clearing/transfers", body)).status_code == 404
    messages = (await auditor.get(f"{path}/messages")).json()
    assert [message["body"]["kind"] for message in messages] == ["prepare", "accepted"]


BAD_INPUT = [
    ({"minutes": 0}, 422, "invalid", "body.minutes"),
    ({"minutes": 1.5}, 422, "invalid", "body.minutes"),
    ({"minutes": 2**53}, 422, "invalid", "body.minutes"),
    ({"deadline": "2026-11-22T10:00:01Z"}, 422, "invalid_deadline", "body.deadline"),
    ({"deadline": "2027-11-22T10:00:00Z"}, 422, "invalid_deadline", "body.deadline"),
    (
        {"to": {"city_id": "nantes", "member_id": str(new_id())}},
        422,
        "same_city",
        "body.to.city_id",
    ),
    ({"to": {"city_id": "paris", "member_id": str(new_id())}}, 409, "no_agreement", None),
    ({"minutes": 601}, 409, "limit_reached", "body.minutes"),
    ({"from_account": str(new_id())}, 404, "not_found", "body.from_account"),
]


async def test_bad_input_is_refused_with_nothing_changed(
    agreed: Federation, subtests: pytest.Subtests
) -> None:
    for changes, status, code, field in BAD_INPUT:
        with subtests.test(str(changes)):
            body = {
                "from_account": str(agreed.bank("nantes").accounts["anna"]),
                "to": {
                    "city_id": "bourges",
                    "member_id": str(agreed.bank("bourges").members["chloe"]),
                },
                "minutes": 10,
                **changes,
            }
            answer = await agreed.caller("anna", "nantes").post("clearing/transfers", body)
            assert answer.status_code == status, answer.text
            document = answer.json()
            assert (document["code"] if status != 422 or code != "invalid" else "invalid") == code
            if field:
                assert document["errors"][0]["field"] == field
            assert await agreed.balance("nantes", "anna") == 0
            assert (
                await agreed.bank("nantes").pool.fetchval("SELECT count(*) FROM clearing_out") == 0
            )


async def test_the_same_request_again_sends_once(agreed: Federation) -> None:
    anna = agreed.caller("anna", "nantes")
    body = {
        "transfer_id": str(new_id()),
        "from_account": str(agreed.bank("nantes").accounts["anna"]),
        "to": {"city_id": "bourges", "member_id": str(agreed.bank("bourges").members["chloe"])},
        "minutes": 10,
    }
    first = await anna.post("clearing/transfers", body, key="one")
    again = await anna.post("clearing/transfers", body, key="one")
    assert again.json() == first.json()
    other_key = await anna.post("clearing/transfers", body, key="two")
    assert (other_key.status_code, other_key.json()["code"]) == (422, "transfer_id_reused")
    await agreed.deliver()
    assert await agreed.balance("bourges", "chloe") == 10


async def test_positions_and_what_is_soft(federation: Federation) -> None:
    await federation.agree("nantes", "bourges", limit_out_minutes=100)
    await federation.send("anna", "nantes", "chloe", "bourges", 50)
    await federation.deliver()
    await federation.send("anna", "nantes", "chloe", "bourges", 30)
    (position,) = (await federation.steward("nantes").get("clearing/positions")).json()["items"]
    expected = {
        "clearing_minutes": 50,
        "in_transit_minutes": 30,
        "in_transit": 1,
        "overdue": 0,
        "limit_out_minutes": 100,
        "soft": True,
        "state": "active",
    }
    assert {name: position[name] for name in expected} == expected


async def test_each_city_can_read_its_own_key_to_the_other(agreed: Federation) -> None:
    seen = {}
    for city in ("nantes", "bourges"):
        (item,) = (await agreed.steward(city).get("agreements", city_id=city)).json()["items"]
        seen[city] = (item["own_key"], item["peer_key"])
    assert seen["nantes"] == tuple(reversed(seen["bourges"]))
    assert all(len(key) == 64 for key in seen["nantes"])


async def test_two_proposals_at_once_become_one_agreement(federation: Federation) -> None:
    for a, b in (("nantes", "bourges"), ("bourges", "nantes")):
        body = {"city_id": a, "peer_city_id": b, "limit_out_minutes": 60, "limit_in_minutes": 60}
        assert (await federation.steward(a).post("agreements", body)).status_code == 201
    await federation.deliver()
    # Bourges comes before Nantes: its proposal stands.
    answer = await federation.steward("nantes").post("agreements/nantes/bourges/accept", {})
    assert answer.status_code == 200, answer.text
    await federation.deliver()
    for city in ("nantes", "bourges"):
        (item,) = (await federation.steward(city).get("agreements", city_id=city)).json()["items"]
        assert item["state"] == "active"


async def test_what_was_decided_and_answered_stays(agreed: Federation) -> None:
    sent = await agreed.send("anna", "nantes", "chloe", "bourges", 50)
    await agreed.deliver()
    transfer_id = UUID(sent["transfer_id"])
    for city, sql in (
        ("nantes", "UPDATE clearing_out SET state = 'sent', conclusion_id = NULL"),
        ("nantes", "UPDATE clearing_out SET minutes = 1"),
        ("bourges", "UPDATE clearing_in SET accepted = false"),
        ("bourges", "DELETE FROM clearing_in"),
        ("nantes", "DELETE FROM clearing_message"),
    ):
        with pytest.raises(asyncpg.PostgresError):
            await agreed.bank(city).pool.execute(f"{sql} WHERE transfer_id = $1", transfer_id)


async def test_the_ledger_keeps_clearing_accounts_from_everybody(agreed: Federation) -> None:
    bank = agreed.bank("nantes")
    account = await bank.pool.fetchval("SELECT account_id FROM account WHERE kind = 'clearing'")
    steward = agreed.steward("nantes")
    answer = await steward.pay(bank.accounts["anna"], account, 5)
    assert (answer.status_code, answer.json()["code"]) == (422, "account_reserved")
    await agreed.send("anna", "nantes", "chloe", "bourges", 5)
    transfer = await bank.pool.fetchval("SELECT transfer_id FROM transfer WHERE kind = 'departure'")
    answer = await steward.post(f"transfers/{transfer}/reverse")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_reversible")


async def test_who_is_erased_takes_their_words_along(agreed: Federation) -> None:
    await agreed.send("anna", "nantes", "chloe", "bourges", 5, memo="for the roof of Chloé")
    await agreed.deliver()
    bank = agreed.bank("nantes")
    anna = agreed.caller("anna", "nantes")
    path = f"members/{bank.members['anna']}/export"
    (sent,) = (await anna.get(path)).json()["tables"]["clearing_sent"]
    assert (sent["minutes"], sent["memo"]) == (5, "for the roof of Chloé")
    async with bank.pool.acquire() as conn, conn.transaction():
        await privacy.forget(conn, bank.members["anna"], agreed.clock())
    tables = await bank.pool.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'unsettled'"
    )
    for table in tables:
        rows = await bank.pool.fetch(f'SELECT t::text AS row FROM "{table["tablename"]}" t')
        assert not [row for row in rows if "roof" in row["row"]], table["tablename"]
