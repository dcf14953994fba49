"""Debts that go round three cities of two time banks: netted, and compared, by signed messages that
the test carries, loses, repeats and forges."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from bank_world import Caller
from clearing_world import Federation, Letter, two_time_banks
from pydantic import TypeAdapter

from common.ids import new_id
from copass_verify.entries import Book
from timebank.clearing.messages import Body, write_message
from timebank.log import service as log_service
from timebank.netting import service as netting
from timebank.reconciliation import service as reconciliation
from timebank.verify import verify_books

CIRCLE = [("nantes", "anna"), ("bourges", "chloe"), ("brest", "denis")]
CITIES = [city for city, _ in CIRCLE]
OVERDUE = timedelta(hours=1)
BODY: TypeAdapter[Any] = TypeAdapter(Body)


@pytest.fixture
async def federation(
    make_database: Callable[[str, Path], Awaitable[str]],
) -> AsyncIterator[Federation]:
    """Each city owes the one before it: Bourges owes Nantes 90, Brest Bourges 60, Nantes Brest 75.
    Brest and Nantes share a time bank, Bourges has its own."""
    async with two_time_banks(make_database) as made:
        await made.make_keys()
        for a, b in (("nantes", "bourges"), ("bourges", "brest"), ("brest", "nantes")):
            await made.agree(a, b)
        for (source, payer), (to, payee), minutes in zip(
            CIRCLE, [*CIRCLE[1:], CIRCLE[0]], (90, 60, 75), strict=True
        ):
            await made.send(payer, source, payee, to, minutes)
        await made.deliver()
        await compare(made)
        yield made


async def compare(federation: Federation) -> None:
    """Every city asks every other where it stands, and hears it."""
    await ask(federation)
    await federation.deliver()


async def ask(federation: Federation) -> None:
    federation.clock.advance(minutes=5)
    for bank in federation.each:
        await reconciliation.ask_where_due(
            bank.pool,
            federation.vault,
            federation.clock,
            every=timedelta(minutes=5),
            overdue=OVERDUE,
        )


async def speak_again(federation: Federation) -> None:
    for bank in federation.each:
        await netting.speak_where_due(bank.pool, federation.vault, federation.clock())


def admin(federation: Federation, city: str) -> Caller:
    return federation.caller(str(new_id()), city, "federation_admin")


async def positions(federation: Federation) -> dict[tuple[str, str], int]:
    return {
        (a, b): await federation.minutes(a, "clearing", b) for a in CITIES for b in CITIES if a != b
    }


async def states(federation: Federation, netting_id: str) -> list[str | None]:
    return [
        await federation.bank(city).pool.fetchval(
            "SELECT state FROM netting WHERE city_id = $1 AND netting_id = $2",
            city,
            UUID(netting_id),
        )
        for city in CITIES
    ]


async def set_aside(federation: Federation) -> int:
    return sum(
        [
            await bank.pool.fetchval(
                "SELECT sum(netting_up_minutes + netting_down_minutes)::bigint FROM agreement"
            )
            for bank in federation.each
        ]
    )


async def propose(federation: Federation, city: str = "nantes", **body: Any) -> dict[str, Any]:
    proposed = await admin(federation, city).post("nettings", body)
    assert proposed.status_code == 201, proposed.text
    made: dict[str, Any] = proposed.json()
    return made


async def answer(federation: Federation, city: str, netting_id: str, what: str = "agree") -> Any:
    return await federation.steward(city).post(f"nettings/{city}/{netting_id}/{what}")


async def compared(federation: Federation, city: str) -> dict[str, Any]:
    """By peer, how a city of ours stands with it."""
    read = await federation.steward(city).get("reconciliation")
    assert read.status_code == 200, read.text
    return {pair["peer_city_id"]: pair for pair in read.json()["items"]}


async def events(federation: Federation, city: str) -> list[dict[str, Any]]:
    rows = await federation.bank(city).pool.fetch(
        "SELECT payload FROM outbox WHERE type = 'timebank.pair.alarm.changed.v1' ORDER BY id"
    )
    return [row["payload"] for row in rows]


async def kept_messages(federation: Federation) -> int:
    counts = [
        await bank.pool.fetchval("SELECT count(*) FROM clearing_message")
        for bank in federation.each
    ]
    return sum(counts)


async def assert_sound(federation: Federation) -> None:
    await federation.check_books()
    for bank in federation.each:
        assert [report.wrong for report in await verify_books(bank.dsn)] == [()] * (
            2 if bank is federation.bank("nantes") else 1
        )


async def test_a_circle_is_proposed_agreed_by_all_and_posted_once(federation: Federation) -> None:
    possible = await federation.steward("bourges").get("nettings/possible")
    assert possible.json()["cycles"] == [{"cities": ["bourges", "nantes", "brest"], "minutes": 60}]
    refused = [
        await federation.caller("anna", "nantes").get("nettings/possible"),
        await federation.caller("anna", "nantes").post("nettings", {}),
        await federation.steward("nantes").post("nettings", {"city_id": "brest"}),
        await admin(federation, "nantes").post("nettings", {"city_id": "bourges"}),
        await admin(federation, "nantes").post("nettings", {"cities": ["nantes", "brest", "lyon"]}),
    ]
    assert [each.status_code for each in refused] == [403, 403, 404, 409, 409]
    made = await propose(federation, city_id="nantes")
    netting_id = made["netting_id"]
    assert (made["minutes"], made["decider"]) == (180, "nantes")
    assert made["waiting_for"] == sorted(CITIES)
    assert made["explanation"]["en"].startswith(
        "bourges owes nantes, nantes owes brest, brest owes"
    )
    assert (await federation.steward("nantes").post("nettings", {"city_id": "nantes"})).json()[
        "code"
    ] == "nothing_to_net"
    await federation.deliver()
    assert await states(federation, netting_id) == ["proposed"] * 3

    # Each city speaks for itself alone, and who has not agreed is named where it is decided.
    steward = federation.steward("nantes")
    assert (await steward.post(f"nettings/bourges/{netting_id}/agree")).status_code == 404
    assert (await steward.post(f"nettings/brest/{netting_id}/agree")).status_code == 404
    member = federation.caller("anna", "nantes")
    assert (await member.post(f"nettings/nantes/{netting_id}/agree")).status_code == 403
    assert (await member.get(f"nettings/nantes/{netting_id}")).status_code == 403
    assert (await steward.get(f"nettings/brest/{netting_id}")).status_code == 404
    before = await positions(federation)
    agreed = await answer(federation, "nantes", netting_id)
    assert (agreed.json()["state"], agreed.json()["waiting_for"]) == (
        "agreed",
        ["bourges", "brest"],
    )
    assert (await answer(federation, "nantes", netting_id, "refuse")).json()["code"] == (
        "netting_state"
    )
    assert await set_aside(federation) == 120
    assert (await answer(federation, "bourges", netting_id)).json()["state"] == "agreed"
    await federation.deliver()
    assert await positions(federation) == before
    read = await federation.steward("nantes").get(f"nettings/nantes/{netting_id}")
    assert [each["city_id"] for each in read.json()["answers"]] == ["bourges"]
    assert read.json()["waiting_for"] == ["brest"]

    # The last one agrees. Its own answer, and the decision on its way to Bourges, come twice.
    assert (await answer(federation, "brest", netting_id)).status_code == 200
    await federation.collect()
    federation.letters *= 2
    await federation.deliver()
    assert await states(federation, netting_id) == ["posted"] * 3
    after = await positions(federation)
    assert after["nantes", "bourges"] == -after["bourges", "nantes"] == 30
    assert after["bourges", "brest"] == after["brest", "bourges"] == 0
    assert after["brest", "nantes"] == -after["nantes", "brest"] == 15
    assert await set_aside(federation) == 0
    assert await federation.balance("nantes", "anna") == -15
    await assert_sound(federation)
    listed = await federation.caller(str(new_id()), "brest", "auditor").get("nettings")
    assert [(each["city_id"], each["state"]) for each in listed.json()["items"]] == [
        ("nantes", "posted")
    ]

    # It stands in the logs, and an auditor's program takes it.
    for bank in federation.each:
        async with bank.pool.acquire() as conn, conn.transaction():
            for city in CITIES:
                if federation.bank(city) is bank:
                    await log_service.sequence(conn, city)
        rows = await bank.pool.fetch("SELECT city_id, entry FROM log_entry ORDER BY city_id, index")
        for city in CITIES:
            if federation.bank(city) is not bank:
                continue
            book = Book(city)
            for row in rows:
                if row["city_id"] == city:
                    book.add(row["entry"])
            peers = {
                other: after[city, other] - before[city, other]
                for other in CITIES[:]
                if other != city
            }
            assert {each: one.moved for each, one in book.netted.items()} == {netting_id: peers}


async def test_what_is_lost_is_said_again_and_what_is_forged_changes_nothing(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    netting_id = (await propose(federation, city_id="nantes"))["netting_id"]
    await federation.collect()
    federation.letters.clear()
    assert await states(federation, netting_id) == ["proposed", None, None]
    federation.clock.advance(seconds=6)
    await speak_again(federation)
    await federation.deliver()
    assert await states(federation, netting_id) == ["proposed"] * 3
    for city in CITIES:
        assert (await answer(federation, city, netting_id)).status_code == 200
    await federation.collect()
    federation.letters.clear()  # also what Bourges and Brest agreed to

    # Nantes' own key says that all have agreed, without what they signed; and another key does, or
    # says that it is given up.
    body = {
        "kind": "netting.decided",
        "netting_id": netting_id,
        "digest": await federation.bank("nantes").pool.fetchval(
            "SELECT digest FROM netting WHERE netting_id = $1 LIMIT 1", UUID(netting_id)
        ),
        "committed": True,
        "agreements": [],
    }
    for signer, committed in (("nantes", True), ("brest", True), ("brest", False)):
        body["committed"] = committed
        await federation.deliver_one(await forge(federation, signer, "nantes", "bourges", body))
    assert await states(federation, netting_id) == ["agreed"] * 3

    # The answers are said again; the decision reaches Brest, and is lost on its way to Bourges.
    federation.clock.advance(seconds=6)
    await speak_again(federation)
    await federation.collect()
    for letter in [each for each in federation.letters if each.data["to_city"] == "nantes"]:
        await federation.deliver_one(letter)
    await federation.collect()
    decided = [each for each in federation.letters if each.data["body"]["kind"].endswith("decided")]
    federation.letters.clear()
    for letter in decided:
        if letter.data["to_city"] == "brest":
            await federation.deliver_one(letter)
    assert await states(federation, netting_id) == ["posted", "agreed", "posted"]

    # What Nantes and Brest have posted and Bourges has not is in flight, and explained.
    await compare(federation)
    for city in ("nantes", "brest"):
        pair = (await compared(federation, city))["bourges"]
        assert (pair["state"], pair["unexplained_minutes"]) == ("in_flight", 0)
        assert pair["in_flight_minutes"] == pair["difference_minutes"] != 0
        assert [(each["id"], each["posted_by"]) for each in pair["open"]] == [(netting_id, city)]
    # Of more than is judged at once, what is newer is no difference.
    with monkeypatch.context() as fewer:
        fewer.setattr(reconciliation, "JUDGED_MAX", 0)
        pair = (await compared(federation, "nantes"))["bourges"]
    assert (pair["state"], pair["unexplained_minutes"], pair["open"]) == ("in_flight", 0, [])
    assert pair["in_flight_minutes"] == pair["difference_minutes"] != 0
    # Nantes is never heard of again: Bourges asks the others, and Brest has the decision.
    for _ in range(5):
        federation.clock.advance(minutes=2)
        await speak_again(federation)
        await federation.collect()
        letters, federation.letters = federation.letters, []
        for letter in letters:
            if "nantes" not in (letter.data["from_city"], letter.data["to_city"]):
                await federation.deliver_one(letter)
    await federation.collect()
    for letter in federation.letters:
        if "nantes" not in (letter.data["from_city"], letter.data["to_city"]):
            await federation.deliver_one(letter)
    federation.letters.clear()
    assert await states(federation, netting_id) == ["posted"] * 3
    await compare(federation)
    assert [pair["state"] for pair in (await compared(federation, "bourges")).values()] == [
        "agrees",
        "agrees",
    ]
    await assert_sound(federation)


async def test_a_netting_that_one_city_refuses_or_lets_lapse_moves_nothing(
    federation: Federation,
) -> None:
    before = await positions(federation)
    first = (await propose(federation, city_id="nantes"))["netting_id"]
    await federation.deliver()
    await answer(federation, "nantes", first)
    await answer(federation, "brest", first)
    await federation.deliver()
    # While Bourges thinks about it, it is reminded, and nobody keeps the reminders.
    before_reminders = await kept_messages(federation)
    for _ in range(3):
        federation.clock.advance(minutes=10)
        await speak_again(federation)
        await federation.collect()
        assert federation.letters
        await federation.deliver()
    assert await kept_messages(federation) == before_reminders
    refused = await answer(federation, "bourges", first, "refuse")
    assert refused.json()["state"] == "refused"
    await federation.deliver()
    assert await states(federation, first) == ["abandoned", "abandoned", "abandoned"]
    assert await set_aside(federation) == 0
    late = await answer(federation, "bourges", first)
    assert (late.status_code, late.json()["code"]) == (409, "netting_state")

    # What crosses before a city agrees counts: the debt that was to be netted is paid back.
    second = (await propose(federation, city_id="nantes"))["netting_id"]
    await federation.deliver()
    await federation.send("denis", "brest", "chloe", "bourges", 30)
    await federation.deliver()
    unfit = await answer(federation, "brest", second)
    assert (unfit.status_code, unfit.json()["code"]) == (409, "netting_does_not_fit")
    await answer(federation, "nantes", second)
    federation.clock.advance(days=8)
    expired = await answer(federation, "bourges", second)
    assert expired.json()["code"] == "netting_expired"
    await speak_again(federation)
    await federation.deliver()
    assert await states(federation, second) == ["abandoned", "expired", "expired"]
    assert await set_aside(federation) == 0
    assert (await positions(federation))["nantes", "bourges"] == before["nantes", "bourges"]
    await assert_sound(federation)

    # The worker proposes what is left, once, in the time bank of the first city in it.
    proposed = []
    for bank in federation.each:
        cities = [city for city in CITIES if federation.bank(city) is bank]
        async with bank.pool.acquire() as conn, conn.transaction():
            proposed.append(
                await netting.propose_by_itself(
                    conn, federation.vault, cities.__contains__, federation.clock()
                )
            )
    assert [each.netting.plan.decider for each in proposed if each] == ["bourges"]
    await federation.deliver()
    assert await states(federation, str(proposed[1].netting.plan.netting_id)) == ["proposed"] * 3


async def test_what_a_city_only_says_keeps_no_others_from_netting(federation: Federation) -> None:
    moves = [
        {"debtor": a, "creditor": b, "minutes": 2**40, "owed_minutes": 2**40}
        for a, b in (("bourges", "nantes"), ("nantes", "brest"), ("brest", "bourges"))
    ]
    plan = {"kind": "netting.proposed", "moves": moves}
    in_time, for_ever = str(new_id()), str(new_id())
    for netting_id, days in ((in_time, 30), (for_ever, 31)):
        expires_at = (federation.clock() + timedelta(days=days)).isoformat()
        body = {**plan, "netting_id": netting_id, "expires_at": expires_at}
        await federation.deliver_one(await forge(federation, "brest", "brest", "bourges", body))
    assert (await states(federation, in_time))[1] == "proposed"
    assert await states(federation, for_ever) == [None] * 3
    possible = await federation.steward("bourges").get("nettings/possible")
    assert possible.json()["minutes"] == 180

    # Nor are positions remembered with cities that nobody has heard of.
    said = {
        "kind": "pair.said",
        "question_id": str(new_id()),
        "since": 0,
        "version": 2**50,
        "position_minutes": 5,
        "in_transit_minutes": 0,
        "movements": [],
        "complete": False,
        "waiting": [],
        "waiting_complete": True,
        "log_size": 0,
    }
    for to_city in ("nantes", "atlantis"):
        await federation.deliver_one(await forge(federation, "brest", "brest", to_city, said))
    heard = await federation.bank("bourges").pool.fetch(
        "SELECT to_city FROM position_said WHERE version = $1", 2**50
    )
    assert [row["to_city"] for row in heard] == ["nantes"]


async def test_one_that_is_stuck_keeps_no_other_waiting(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await propose(federation, city_id="nantes")
    await federation.deliver()
    bank = federation.bank("nantes")
    spoken: list[str] = []
    compared_with: list[str] = []

    async def speak(_conn: Any, _vault: Any, city_id: str, *_: Any) -> None:
        spoken.append(city_id)
        if len(spoken) == 1:
            raise RuntimeError("the netting was refused")

    async def compare_pair(_conn: Any, _vault: Any, city_id: str, peer: str, **_: Any) -> None:
        compared_with.append(peer)
        if len(compared_with) == 1:
            raise LookupError(f"{city_id} has no key yet")

    monkeypatch.setattr(netting, "speak_again", speak)
    monkeypatch.setattr(reconciliation, "ask", compare_pair)
    federation.clock.advance(days=8)
    assert await netting.speak_where_due(bank.pool, federation.vault, federation.clock()) == 1
    assert sorted(spoken) == ["brest", "nantes"]
    await ask(federation)
    assert len(compared_with) == 6  # of both time banks


async def test_two_books_differ_by_what_is_in_flight_and_alarms_name_the_rest(
    federation: Federation,
) -> None:
    for city in CITIES:
        assert {pair["state"] for pair in (await compared(federation, city)).values()} == {"agrees"}

    # An answer that is on its way: in flight for both cities, and after an hour late.
    sent = await federation.send("anna", "nantes", "chloe", "bourges", 25)
    await federation.collect()
    for letter in federation.letters:
        await federation.deliver_one(letter)
    federation.letters.clear()
    await federation.collect()
    answers, federation.letters = federation.letters, []
    assert [letter.data["body"]["kind"] for letter in answers] == ["accepted"]
    await compare(federation)
    for city, peer in (("nantes", "bourges"), ("bourges", "nantes")):
        pair = (await compared(federation, city))[peer]
        assert (pair["state"], pair["difference_minutes"], pair["in_flight_minutes"]) == (
            "in_flight",
            -25,
            -25,
        )
        assert [(each["id"], each["posted_by"], each["verdict"]) for each in pair["open"]] == [
            (sent["transfer_id"], "bourges", "in_flight")
        ]
    federation.clock.advance(minutes=70)
    await compare(federation)
    await compare(federation)
    pair = (await compared(federation, "nantes"))["bourges"]
    assert [(each["kind"], each["ids"]) for each in pair["alarms"]] == [
        ("late", [sent["transfer_id"]])
    ]
    assert [(each["kind"], each["closed_at"]) for each in await events(federation, "bourges")] == [
        ("late", None)
    ]
    for letter in answers:
        await federation.deliver_one(letter)
    await compare(federation)
    told = await events(federation, "bourges")
    assert [(each["version"], each["closed_at"] is None) for each in told] == [
        (1, True),
        (2, False),
    ]
    assert told[0]["alarm_id"] == told[1]["alarm_id"]
    agrees = await federation.steward("nantes").get("reconciliation/alarms", open=False)
    assert [each["kind"] for each in agrees.json()["items"]] == ["late"]
    assert (await federation.steward("nantes").get("reconciliation/alarms")).json()["items"] == []

    # Bourges says that it took in what Nantes never sent.
    invented = await lie(federation, "bourges", "nantes", invented=40)
    pair = (await compared(federation, "nantes"))["bourges"]
    assert (pair["state"], pair["unexplained_minutes"]) == ("differs", -40)
    assert [(each["kind"], each["ids"], each["minutes"]) for each in pair["alarms"]] == [
        ("unknown_here", [invented], -40)
    ]
    # Then it shows a book with less in it than it had shown: an older database.
    await lie(federation, "bourges", "nantes", forgets=1)
    pair = (await compared(federation, "nantes"))["bourges"]
    assert (pair["state"], {each["kind"] for each in pair["alarms"]}) == ("differs", {"went_back"})
    # And to Brest it says another position than its postings sum to.
    await lie(federation, "bourges", "brest", off=7)
    pair = (await compared(federation, "brest"))["bourges"]
    assert [(each["kind"], each["minutes"]) for each in pair["alarms"]] == [("position_differs", 7)]
    assert pair["unexplained_minutes"] == 7
    # From then on it says nothing.
    for _ in range(2):
        await ask(federation)
        federation.letters.clear()
        federation.clock.advance(minutes=70)
    await ask(federation)
    pair = (await compared(federation, "brest"))["bourges"]
    assert "silent" in {each["kind"] for each in pair["alarms"]}

    seen = await admin(federation, "nantes").get("reconciliation")
    assert {(each["city_id"], each["peer_city_id"]) for each in seen.json()["items"]} == {
        ("nantes", "bourges"),
        ("nantes", "brest"),
        ("brest", "nantes"),
        ("brest", "bourges"),
    }
    member = federation.caller("anna", "nantes")
    assert (await member.get("reconciliation")).status_code == 403
    assert (await member.get("reconciliation", city_id="brest")).status_code == 404
    assert (
        await federation.steward("brest").get("reconciliation/alarms", city_id="nantes")
    ).status_code == 404


async def test_what_becomes_of_taking_back_is_seen_in_both_cities(federation: Federation) -> None:
    sent = await federation.send("anna", "nantes", "chloe", "bourges", 20)
    path = f"clearing/transfers/{sent['transfer_id']}/reversal"
    await federation.deliver()

    async def seen() -> list[tuple[str, list[str]]]:
        callers = [
            federation.caller("anna", "nantes"),
            federation.steward("nantes"),
            federation.caller("chloe", "bourges"),
            federation.steward("bourges"),
        ]
        reads = [(await caller.get(path)).json() for caller in callers]
        assert reads[0] == reads[1]
        assert reads[2] == reads[3]
        return [(read["state"], read["waiting_for"]) for read in reads[1:3]]

    assert await seen() == [
        ("not_asked", ["nantes", "bourges"]),
        ("not_asked", ["bourges", "nantes"]),
    ]
    strangers = [federation.caller("denis", "brest"), federation.steward("brest")]
    assert [(await caller.get(path)).status_code for caller in strangers] == [404, 404]
    assert (await federation.caller("x", "brest", "auditor").get(path)).status_code == 200
    await federation.steward("nantes").post(path)
    assert await seen() == [("asked", ["bourges"]), ("not_asked", ["bourges", "nantes"])]
    await federation.deliver()
    assert await seen() == [("asked", ["bourges"]), ("asked", ["bourges"])]
    await federation.steward("bourges").post(path)
    assert await seen() == [("asked", ["bourges"]), ("sent", [])]
    await federation.deliver()
    assert await seen() == [("taken_back", []), ("taken_back", [])]
    read = (await federation.caller("anna", "nantes").get(path)).json()
    assert (
        read["reversal_id"]
        == ((await federation.caller("chloe", "bourges").get(path)).json()["reversal_id"])
    )


# ── Dishonest cities ────────────────────────────────────────────────────────────────────────────


async def forge(
    federation: Federation, signer: str, from_city: str, to_city: str, body: dict[str, Any]
) -> Letter:
    """A message that one city signs in the name of another, or of itself."""
    sealed = await federation.bank(signer).pool.fetchval(
        "SELECT sealed_key FROM city_key WHERE city_id = $1", signer
    )
    message = write_message(
        federation.vault.open(sealed, signer),
        message_id=new_id(),
        from_city=from_city,
        to_city=to_city,
        body=BODY.validate_python(body),
        now=federation.clock(),
    )
    return Letter("timebank.clearing.v1", message.raw)


async def lie(
    federation: Federation,
    city: str,
    to: str,
    *,
    invented: int = 0,
    forgets: int = 0,
    off: int = 0,
) -> str:
    """A city answers the next question of another with something else than its book."""
    invented_id = str(new_id())
    await ask(federation)
    await federation.collect()
    asked = [
        letter
        for letter in federation.letters
        if letter.data["body"]["kind"] == "pair.asked"
        and (letter.data["from_city"], letter.data["to_city"]) == (to, city)
    ]
    federation.letters.clear()
    (question,) = asked
    await federation.deliver_one(question)
    await federation.collect()
    (honest,) = [
        letter.data["body"]
        for letter in federation.letters
        if letter.data["body"]["kind"] == "pair.said" and letter.data["to_city"] == to
    ]
    federation.letters.clear()
    body = dict(honest)
    if invented:
        body["version"] = honest["since"] + 1
        body["movements"] = [
            {
                "version": honest["since"] + 1,
                "kind": "arrival",
                "id": invented_id,
                "minutes": -invented,
            }
        ]
        body["position_minutes"] = honest["position_minutes"] - invented
    if forgets:
        body |= {"version": honest["since"] - forgets, "movements": [], "complete": False}
    body["position_minutes"] += off
    await federation.deliver_one(await forge(federation, city, city, to, body))
    return invented_id
