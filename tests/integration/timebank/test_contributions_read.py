"""Contributions as they are read, told, counted, exported and forgotten."""

import asyncio
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from contribution_world import COMMONS, NOW, TODAY, World, make_world, problem

from common import db
from common.clock import utc_now
from common.events import Event
from common.ids import new_id
from timebank import consumers, service
from timebank import store as ledger_store
from timebank.contributions import service as contributions
from timebank.contributions import store
from timebank.contributions.domain import Contribution
from timebank.domain import Actor, Rejected
from timebank.service import MemberState
from timebank.verify import verify_books


@pytest.fixture
async def world(bank: Any) -> World:
    return await make_world(bank)


async def listed(world: World, name: str, **params: Any) -> list[str]:
    answer = await world.who(name).get("contributions", **params)
    assert answer.status_code == 200, answer.text
    return [item["contribution_id"] for item in answer.json()["items"]]


def ids(*several: dict[str, Any]) -> list[str]:
    return [one["contribution_id"] for one in several]


# ── Who sees what ───────────────────────────────────────────────────────────────────────────────


async def test_a_contribution_is_seen_by_those_it_concerns(world: World) -> None:
    private = await world.log("anna", world.to("bruno"), note="her back hurts")
    common = await world.log("anna", COMMONS, note="soup")
    seen = {
        name: tuple([(await world.read(name, one)).status_code for one in (private, common)])
        for name in ("anna", "bruno", "stella", "carl", "ana", "olga", "mia", "chloe")
    }
    assert seen == {
        "anna": (200, 200),
        "bruno": (200, 403),
        "stella": (200, 200),
        "carl": (403, 200),
        "ana": (403, 200),
        "olga": (403, 403),
        "mia": (403, 403),
        "chloe": (404, 404),
    }
    auditor = world.bank.caller("audit", None, "auditor")
    whole = await auditor.get(f"contributions/{private['contribution_id']}")
    assert (whole.status_code, whole.json()["minutes"]) == (200, 120)
    assert "her back hurts" not in whole.text
    absent = await world.who("anna").get(f"contributions/{new_id()}")
    hidden = await world.read("chloe", private)
    assert hidden.json() == absent.json()


async def test_lists_are_of_oneself_or_of_the_city(world: World) -> None:
    first = await world.log("anna", world.to("bruno"), note="her back hurts")
    second = await world.log("bruno", world.to("anna"))
    third = await world.log("olga", COMMONS)
    anna = world.id_of("anna")
    assert await listed(world, "anna", member_id=anna) == ids(second, first)
    assert await listed(world, "anna", member_id=anna, role="giver") == ids(first)
    assert await listed(world, "anna", member_id=anna, role="beneficiary") == ids(second)
    assert await listed(world, "anna", member_id=anna, status="confirmed") == []
    assert await listed(world, "stella", city_id="nantes") == ids(third, second, first)
    assert await listed(world, "stella", member_id=anna) == ids(second, first)
    assert await listed(world, "mia", city_id="nantes") == []
    await world.act("bruno", "dispute", first, {"minutes": 1})
    assert await listed(world, "mia", city_id="nantes") == ids(first)
    assert await listed(world, "mia", city_id="nantes", status="disputed") == ids(first)
    for params in ({"city_id": "nantes"}, {"member_id": world.id_of("bruno")}):
        assert problem(await world.who("anna").get("contributions", **params)) == (
            403,
            "forbidden",
        )
        stranger = world.bank.caller("sten", "bourges", "steward")
        answer = await stranger.get("contributions", **params)
        if "city_id" in params:
            assert problem(answer) == (404, "not_found")
        else:
            assert answer.json()["items"] == []
    auditor = world.bank.caller("audit", None, "auditor")
    answer = await auditor.get("contributions", city_id="nantes")
    assert len(answer.json()["items"]) == 3
    assert "her back hurts" not in answer.text
    assert (
        "her back hurts" in (await world.who("stella").get("contributions", city_id="nantes")).text
    )
    for params in ({}, {"role": "giver", "city_id": "nantes"}, {"status": "gone"}):
        assert (await world.who("anna").get("contributions", **params)).status_code == 422


async def test_pages_follow_one_another_whatever_the_ids(world: World) -> None:
    """A phone makes ids that are in no order; the list is in that of logging."""
    made = []
    for hour, first in enumerate("f0a5"):
        world.bank.app.state.clock = lambda hour=hour: NOW + timedelta(minutes=hour)
        own = f"{first}0000000-0000-4000-8000-000000000000"
        made.append(await world.log("anna", COMMONS, contribution_id=own))
    seen: list[str] = []
    cursor: dict[str, str] = {}
    for _ in made:
        answer = await world.who("anna").get(
            "contributions", member_id=world.id_of("anna"), limit=1, **cursor
        )
        seen += ids(*answer.json()["items"])
        cursor = {"cursor": answer.json()["next"]}
    assert seen == ids(*reversed(made))
    assert cursor == {"cursor": None}


async def test_what_waits_for_my_word(world: World) -> None:
    mine = await world.log("anna", world.to("bruno"))
    common = await world.log("anna", COMMONS)
    fablab = await world.log("bruno", world.to_organisation())
    outside = await world.log("stella", {"kind": "outsider"}, giver_id=world.id_of("anna"))

    async def waits(name: str) -> list[str]:
        answer = await world.who(name).get("contributions/to-confirm")
        assert answer.status_code == 200
        return ids(*answer.json()["items"])

    assert await waits("bruno") == ids(mine)
    assert await waits("anna") == []
    assert await waits("carl") == ids(outside, common)
    assert await waits("olga") == ids(fablab)
    # Not what she logged herself.
    assert await waits("stella") == ids(fablab, common)
    assert await waits("steve") == ids(outside, fablab, common)
    assert await waits("chloe") == []
    await world.act("bruno", "dispute", mine, {"minutes": 5})
    assert await waits("bruno") == []  # it waits for Anna's word
    await world.who("anna").patch(f"contributions/{mine['contribution_id']}", {"minutes": 6})
    assert await waits("bruno") == ids(mine)
    await world.act("carl", "confirm", common)
    assert await waits("ana") == ids(outside)


# ── What is told ────────────────────────────────────────────────────────────────────────────────


async def test_each_change_is_told_with_its_version_and_without_words(world: World) -> None:
    logged = await world.log("anna", world.to("bruno"), 60, note="her back hurts")
    await world.who("anna").patch(f"contributions/{logged['contribution_id']}", {"minutes": 50})
    await world.act("bruno", "dispute", logged, {"minutes": 20, "note": "not true"})
    await world.act("mia", "rule", logged, {"minutes": 30, "note": "both tired"})
    done = (await world.act("stella", "reverse", logged)).json()
    states = await world.states(logged)
    assert [(s["version"], s["status"], s["minutes"], s["confirmed_minutes"]) for s in states] == [
        (1, "logged", 60, None),
        (2, "logged", 50, None),
        (3, "disputed", 50, None),
        (4, "confirmed", 50, 30),
        (5, "reversed", 50, 30),
    ]
    assert states[-1]["transfer_id"] == done["transfer_id"]
    rows = await world.bank.pool.fetch("SELECT payload::text FROM outbox")
    for words in ("her back hurts", "not true", "both tired"):
        assert not [row for row in rows if words in row["payload"]]


async def test_a_refused_command_tells_and_writes_nothing(world: World) -> None:
    logged = await world.log("anna", world.to("bruno"), 60)
    await world.act("bruno", "dispute", logged, {"minutes": 20})

    async def all_of_it() -> list[Any]:
        return [
            await world.bank.pool.fetchval(f"SELECT count(*) FROM {table}")
            for table in ("outbox", "contribution_version", "transfer", "idempotency")
        ] + [await world.bank.pool.fetchval("SELECT sum(state_version) FROM contribution")]

    before = await all_of_it()
    for name, step, body in (
        ("anna", "confirm", {"version": 2}),
        ("bruno", "confirm", {"version": 1}),
        ("bruno", "accept", {"version": 2}),
        ("bruno", "dispute", {"minutes": 60}),
        ("bruno", "rule", {"minutes": 60}),
        ("mia", "rule", {"minutes": 61}),
        ("bruno", "withdraw", None),
        ("stella", "reverse", None),
        ("chloe", "confirm", {"version": 2}),
    ):
        refused = await world.act(name, step, logged, body)
        assert refused.status_code in (403, 404, 409, 422), (name, step)
    assert await all_of_it() == before


# ── What follows from it ────────────────────────────────────────────────────────────────────────


async def pledge(world: World, name: str, minutes: int) -> None:
    answer = await world.who(name).post("pledges", {"minutes_per_month": minutes})
    assert answer.status_code == 201, answer.text


async def test_what_serves_all_counts_towards_the_pledge_and_the_rest_is_ones_own(
    world: World,
) -> None:
    world.bank.app.state.clock = lambda: NOW - timedelta(days=22)
    await pledge(world, "anna", 100)
    world.bank.app.state.clock = lambda: NOW
    owed = 100
    # A neighbour's hour is between neighbours.
    await world.confirmed("anna", world.to("bruno"), "bruno", 60)
    assert await world.balance("anna") == 60
    done = await world.confirmed("anna", COMMONS, "stella", owed + 50)
    counted = 60 + owed + 50 - await world.balance("anna")
    assert counted >= owed
    assert await world.balance("nantes commons") == counted - owed - 50
    back = await world.act("steve", "reverse", done)
    assert back.status_code == 200, back.text
    assert (await world.balance("anna"), await world.balance("nantes commons")) == (60, 0)
    reports = await verify_books(world.bank.dsn)
    assert all(report.sound for report in reports)


async def record(world: World, **more: Any) -> Contribution | Rejected:
    values: dict[str, Any] = {
        "contribution_id": new_id(),
        "giver_id": world.bank.members["anna"],
        "receiver_id": world.bank.members["bruno"],
        "city_id": "nantes",
        "minutes": 45,
        "performed_on": TODAY,
        "activity": "repair",
        "note": None,
        "actor": Actor(world.id_of("bruno"), "nantes"),
        "now": NOW,
    }
    async with world.bank.pool.acquire() as conn, conn.transaction():
        return await contributions.record_exchange(conn, **values | more)


async def test_an_exchange_is_logged_and_confirmed_at_once(world: World) -> None:
    done = await record(world)
    assert isinstance(done, Contribution)
    assert (done.status, done.confirmed_by) == ("confirmed", world.id_of("bruno"))
    assert (await world.balance("anna"), await world.balance("bruno")) == (45, -45)
    (state,) = await world.states({"contribution_id": str(done.id)})
    assert (state["version"], state["status"]) == (1, "confirmed")
    whole = (await world.read("anna", {"contribution_id": str(done.id)})).json()
    assert [v["minutes"] for v in whole["versions"]] == [45]


NO_EXCHANGES = [
    ({"minutes": 0}, "invalid_minutes"),
    ({"minutes": 1441}, "invalid_minutes"),
    ({"performed_on": TODAY + timedelta(days=1)}, "invalid_day"),
    ({"giver_id": UUID(int=1)}, "unknown_member"),
    ({"receiver_id": UUID(int=1)}, "unknown_beneficiary"),
    ({"minutes": 601}, "insufficient_time"),
]


async def test_what_no_exchange_can_be_is_refused(world: World, subtests: pytest.Subtests) -> None:
    for wrong, code in NO_EXCHANGES:
        with subtests.test(str(wrong)):
            refused = await record(world, **wrong)
            assert isinstance(refused, Rejected)
            assert (refused.code, refused.field) == (code, None)
            assert await world.bank.pool.fetchval("SELECT count(*) FROM contribution") == 0


async def test_an_exchange_is_recorded_once(world: World) -> None:
    own = new_id()
    assert isinstance(await record(world, contribution_id=own), Contribution)
    again = await record(world, contribution_id=own)
    assert isinstance(again, Rejected)
    assert again.code == "contribution_id_reused"
    assert await world.bank.transfers() == 1


async def test_an_exchange_by_who_holds_the_accounts_stands_in_nobodys_way(
    world: World, owner: db.Connection
) -> None:
    """The board releases a hold first, so it holds the accounts when it records the exchange."""
    back = await world.log("bruno", world.to("anna"), 5)
    accounts = [world.bank.accounts[name] for name in ("anna", "bruno")]
    members = [world.bank.members[name] for name in ("anna", "bruno")]

    async def exchange() -> Contribution | Rejected:
        async with world.bank.pool.acquire() as conn, conn.transaction():
            await ledger_store.lock_accounts(conn, accounts)
            # Until the confirmation holds the members and waits for the accounts.
            while not await owner.fetchval(
                "SELECT true FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock'"
            ):
                await asyncio.sleep(0.01)
            return await contributions.record_exchange(
                conn,
                contribution_id=new_id(),
                giver_id=members[0],
                receiver_id=members[1],
                city_id="nantes",
                minutes=45,
                performed_on=TODAY,
                activity="repair",
                note=None,
                actor=Actor(world.id_of("bruno"), "nantes"),
                now=NOW,
            )

    async with asyncio.timeout(20):
        done, confirmed = await asyncio.gather(exchange(), world.act("anna", "confirm", back))
    assert isinstance(done, Contribution)
    assert confirmed.status_code == 200
    assert await world.balance("anna") == 40


async def test_neighbours_confirm_one_another_at_the_same_time(world: World) -> None:
    """Both ways at once, with transfers between them: nobody waits for ever."""
    pairs = [
        (
            await world.log("anna", world.to("bruno"), 7),
            await world.log("bruno", world.to("anna"), 5),
        )
        for _ in range(6)
    ]
    accounts = world.bank.accounts
    answers = await asyncio.gather(
        *(
            attempt
            for there, back in pairs
            for attempt in (
                world.act("bruno", "confirm", there),
                world.act("anna", "confirm", back),
                world.who("anna").pay(accounts["anna"], accounts["bruno"], 1),
            )
        )
    )
    assert {answer.status_code for answer in answers} == {200, 201}
    assert await world.balance("anna") == 6 * (7 - 5 - 1)


# ── Flags ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_ring_is_flagged_and_not_blocked(world: World) -> None:
    for _ in range(3):
        await world.confirmed("carl", COMMONS, "ana", 60)
        await world.confirmed("ana", COMMONS, "carl", 40)
    await world.confirmed("carl", COMMONS, "stella", 60)
    answer = await world.who("stella").get("contributions/flags", city_id="nantes")
    assert answer.status_code == 200
    page = answer.json()
    assert (page["until"], page["days"], page["complete"]) == ("2026-11-23", 60, True)
    (flag,) = page["items"]
    assert (flag["rule"], flag["minutes"]) == ("reciprocal", 300)
    carl, ana = world.id_of("carl"), world.id_of("ana")
    assert {step["giver_id"]: step for step in flag["steps"]} == {
        carl: {
            "giver_id": carl,
            "confirmer_id": ana,
            "minutes": 180,
            "confirmations": 3,
            "percent": 75,
        },
        ana: {
            "giver_id": ana,
            "confirmer_id": carl,
            "minutes": 120,
            "confirmations": 3,
            "percent": 100,
        },
    }
    assert "75 %" in flag["reason"]["fr"]
    await world.confirmed("carl", COMMONS, "ana", 60)
    for name, expected in (("carl", 403), ("olga", 403), ("chloe", 404)):
        refused = await world.who(name).get("contributions/flags", city_id="nantes")
        assert refused.status_code == expected
    auditor = world.bank.caller("audit", None, "auditor")
    assert (await auditor.get("contributions/flags", city_id="nantes")).status_code == 200
    assert (await auditor.get("contributions/flags", city_id="atlantis")).status_code == 404
    world.bank.app.state.clock = lambda: NOW + timedelta(days=60)
    later = await world.who("stella").get("contributions/flags", city_id="nantes")
    assert later.json()["items"] == []


# ── Places, as they are told ────────────────────────────────────────────────────────────────────


async def test_places_are_learnt_in_any_order(world: World) -> None:
    place_id = new_id()

    async def told(version: int, city_id: str, status: str) -> None:
        event = Event(
            id=new_id(),
            type="places.place.changed.v1",
            source="/places",
            subject=str(place_id),
            time=utc_now(),
            data={
                "place_id": str(place_id),
                "version": version,
                "city_id": city_id,
                "name": "La Fabrique",
                "status": status,
                "doors": [],
            },
        )
        async with world.bank.pool.acquire() as conn, conn.transaction():
            await consumers.handlers(utc_now)[consumers.PLACES](conn, event)

    body = world.body(COMMONS, place_id=str(place_id))
    assert problem(await world.who("anna").post("contributions", body)) == (422, "unknown_place")
    await told(2, "bourges", "in_network")
    assert problem(await world.who("anna").post("contributions", body)) == (422, "unknown_place")
    await told(3, "nantes", "closed")
    await told(1, "bourges", "in_network")
    await told(3, "bourges", "in_network")
    # What was done there before it closed, was done.
    assert (await world.who("anna").post("contributions", body)).status_code == 201


# ── A person's own ──────────────────────────────────────────────────────────────────────────────


async def test_a_member_takes_all_of_it_with_them(world: World) -> None:
    given = await world.log("anna", world.to("bruno"), 60, note="shelves")
    await world.act("bruno", "dispute", given, {"minutes": 20, "note": "one shelf"})
    received = await world.log("olga", world.to("anna"), 5)
    await world.log("olga", COMMONS, 9)
    async with world.bank.pool.acquire() as conn:
        export = await store.export_of(conn, world.bank.members["anna"])
    assert [str(row["contribution_id"]) for row in export["contributions"]] == ids(given, received)
    assert [
        (row["minutes"], row["note"], row["written_by_me"])
        for row in export["contribution_versions"]
    ] == [(60, "shelves", True), (20, "one shelf", False), (5, None, False)]


async def test_who_is_erased_leaves_numbers_and_no_words(world: World) -> None:
    anna = world.bank.members["anna"]
    done = await world.confirmed("anna", world.to("bruno"), "bruno", 30)
    disputed = await world.log("anna", world.to("bruno"), 60, note="shelves")
    await world.act("bruno", "dispute", disputed, {"minutes": 20, "note": "Anna's shelf"})
    received = await world.log("olga", world.to("anna"), 5, note="for Anna")
    ruled = await world.log("anna", COMMONS, 40, note="soup")
    await world.act("stella", "dispute", ruled, {"minutes": 10, "note": "thin soup"})
    await world.act("mia", "rule", ruled, {"minutes": 20, "note": "Anna's soup"})
    kept = await world.log("olga", COMMONS, 9, note="floor")
    state = MemberState(anna, "nantes", "erased", 2)
    async with world.bank.pool.acquire() as conn, conn.transaction():
        await service.apply_member(conn, state, NOW, new_id)
        await contributions.withdraw_member(conn, anna, NOW)
        await store.forget(conn, anna)
    rows = await world.bank.pool.fetch(
        "SELECT contribution_id::text, status, giver_id, confirmed_minutes FROM contribution"
    )
    assert {row["contribution_id"]: row["status"] for row in rows} == {
        **dict.fromkeys(ids(done, ruled), "confirmed"),
        **dict.fromkeys(ids(disputed, received), "withdrawn"),
        kept["contribution_id"]: "logged",
    }
    assert sum(row["confirmed_minutes"] or 0 for row in rows) == 50
    notes = await world.bank.pool.fetch(
        "SELECT note FROM contribution_version WHERE note IS NOT NULL"
    )
    assert [row["note"] for row in notes] == ["floor"]
    told = await world.told("contribution.withdrawn")
    assert [name for name, _ in told] == ["bruno", "olga"] or [name for name, _ in told] == [
        "olga",
        "bruno",
    ]
    for one in (disputed, received):
        assert (await world.states(one))[-1]["status"] == "withdrawn"
    refused = await world.who("bruno").post("contributions", world.body(world.to("anna")))
    assert problem(refused) == (422, "unknown_beneficiary")
    refused = await world.who("anna").post("contributions", world.body(COMMONS))
    assert problem(refused) == (422, "unknown_member")
    reports = await verify_books(world.bank.dsn)
    assert all(report.sound for report in reports)


async def test_who_moved_contributes_where_they_live_now(world: World) -> None:
    before = await world.log("anna", COMMONS, 30)
    async with world.bank.pool.acquire() as conn, conn.transaction():
        state = MemberState(world.bank.members["anna"], "bourges", "active", 2)
        await service.apply_member(conn, state, NOW, new_id)
    anna = world.bank.caller("anna", "bourges")
    body = world.body(COMMONS, performed_on=date(2026, 11, 22).isoformat())
    answer = await anna.post("contributions", body)
    assert (answer.status_code, answer.json()["city_id"]) == (201, "bourges")
    # What was done in Nantes is confirmed there, and its minutes are there.
    assert (await world.act("stella", "confirm", before)).status_code == 200
    assert await world.balance("anna") == 30
