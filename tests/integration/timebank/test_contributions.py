"""Contributions: nobody's word alone makes minutes, and nothing that was said is lost."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from contribution_world import COMMONS, TODAY, World, field_of, make_world, problem

from common.ids import new_id
from timebank.verify import verify_books


@pytest.fixture
async def world(bank: Any) -> World:
    return await make_world(bank)


async def assert_sound(world: World) -> None:
    reports = await verify_books(world.bank.dsn)
    assert [report.differences for report in reports] == [()] * len(reports)


# ── From the work to the minutes ────────────────────────────────────────────────────────────────


async def test_what_a_neighbour_confirms_is_given(world: World) -> None:
    logged = await world.log(
        "anna", world.to("bruno"), 90, note="three shelves", place_id=str(world.place)
    )
    assert logged == logged | {
        "giver_id": world.id_of("anna"),
        "beneficiary": world.to("bruno"),
        "status": "logged",
        "version": 1,
        "minutes": 90,
        "performed_on": "2026-11-23",
        "activity": "cooking",
        "place_id": str(world.place),
        "note": "three shelves",
        "confirmed_minutes": None,
        "transfer_id": None,
    }
    assert (await world.balance("anna"), await world.bank.transfers()) == (0, 0)
    answer = await world.act("bruno", "confirm", logged)
    assert answer.status_code == 200
    done = answer.json()
    assert done["status"] == "confirmed"
    assert (done["confirmed_minutes"], done["confirmed_by"]) == (90, world.id_of("bruno"))
    assert (await world.balance("anna"), await world.balance("bruno")) == (90, -90)
    transfer = (await world.who("anna").get(f"transfers/{done['transfer_id']}")).json()
    # The words stay with the contribution, where they can be erased.
    assert (transfer["kind"], transfer["memo"]) == ("contribution", None)
    assert [name for name, _ in await world.told("contribution.to_confirm")] == ["bruno"]
    assert [name for name, _ in await world.told("contribution.confirmed")] == ["anna"]
    await assert_sound(world)


@pytest.mark.parametrize(
    ("kind", "account", "confirmers", "others"),
    [
        ("commons", "nantes commons", ("stella", "carl", "ana"), ("olga", "mia", "bruno")),
        ("outsider", "nantes commons", ("stella", "carl", "ana"), ("olga", "mia", "bruno")),
        ("organisation", "fablab", ("stella", "olga"), ("carl", "ana", "mia", "bruno")),
        ("member", "bruno", ("bruno", "stella"), ("olga", "carl", "ana", "mia")),
    ],
)
async def test_who_speaks_for_whom(
    world: World, kind: str, account: str, confirmers: tuple[str, ...], others: tuple[str, ...]
) -> None:
    to = {
        "commons": COMMONS,
        "outsider": {"kind": "outsider"},
        "organisation": world.to_organisation(),
        "member": world.to("bruno"),
    }[kind]
    for name in confirmers:
        logged = await world.log("anna", to, 30)
        for other in others:
            assert problem(await world.act(other, "confirm", logged)) == (403, "forbidden")
            refused = await world.act(other, "dispute", logged, {"minutes": 1})
            assert problem(refused) == (403, "forbidden")
        assert (await world.act(name, "confirm", logged)).status_code == 200
    given = 30 * len(confirmers)
    assert (await world.balance("anna"), await world.balance(account)) == (given, -given)


async def test_nobody_confirms_what_they_gave_or_logged(world: World) -> None:
    own = await world.log("stella", COMMONS)
    assert problem(await world.act("stella", "confirm", own)) == (403, "self_confirmation")
    refused = await world.act("stella", "dispute", own, {"minutes": 10})
    assert problem(refused) == (403, "self_confirmation")
    # Neither what a steward logged for somebody: two people stand for every minute.
    for_anna = await world.log("stella", COMMONS, giver_id=world.id_of("anna"))
    assert (for_anna["giver_id"], for_anna["logged_by"]) == (
        world.id_of("anna"),
        world.id_of("stella"),
    )
    assert problem(await world.act("stella", "confirm", for_anna)) == (403, "self_confirmation")
    assert problem(await world.act("anna", "confirm", for_anna)) == (403, "self_confirmation")
    assert (await world.act("steve", "confirm", for_anna)).status_code == 200


async def test_a_steward_logs_for_others_and_nobody_else_does(world: World) -> None:
    body = world.body(COMMONS, giver_id=world.id_of("anna"))
    for name in ("bruno", "olga", "carl", "ana", "mia", "chloe"):
        answer = await world.who(name).post("contributions", body)
        assert problem(answer) == (403, "forbidden")
    stranger = world.bank.caller("sten", "bourges", "steward")
    answer = await stranger.post("contributions", body)
    # In Bourges, nobody knows of a member of Nantes.
    assert (problem(answer), field_of(answer)) == ((422, "unknown_member"), "body.giver_id")
    assert (await world.who("stella").post("contributions", body)).status_code == 201


async def test_who_has_no_minutes_left_cannot_confirm_and_it_stays_logged(world: World) -> None:
    first = await world.log("anna", world.to("bruno"), 600)
    second = await world.log("anna", world.to("bruno"), 1)
    assert (await world.act("bruno", "confirm", first)).status_code == 200
    refused = await world.act("bruno", "confirm", second)
    assert problem(refused) == (409, "insufficient_time")
    # How Bruno stands is not everybody's to know.
    assert "600" not in refused.text
    assert (await world.read("anna", second)).json()["status"] == "logged"
    assert (await world.balance("anna"), await world.bank.transfers()) == (600, 1)
    await world.confirmed("bruno", COMMONS, "stella", 60)
    assert (await world.act("bruno", "confirm", second)).status_code == 200


async def test_confirming_twice_gives_once(world: World) -> None:
    logged = await world.log("anna", world.to("bruno"), 10)
    answers = await asyncio.gather(
        *(world.act(name, "confirm", logged) for name in ("bruno", "stella", "steve") * 3)
    )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 8}
    assert {problem(a)[1] for a in answers if a.status_code == 409} == {"contribution_ended"}
    assert (await world.balance("anna"), await world.bank.transfers()) == (10, 1)


async def test_the_same_command_is_done_once(world: World) -> None:
    body = world.body(COMMONS)
    first = await world.who("anna").post("contributions", body, key="k")
    again = await world.who("anna").post("contributions", body, key="k")
    assert (first.status_code, again.json()) == (201, first.json())
    other = await world.who("anna").post("contributions", body | {"minutes": 5}, key="k")
    assert problem(other) == (422, "idempotency_key_reused")
    confirm = [await world.act("stella", "confirm", first.json(), key="c") for _ in range(2)]
    assert confirm[0].json() == confirm[1].json()
    assert await world.bank.transfers() == 1
    own = str(new_id())
    await world.log("anna", COMMONS, contribution_id=own)
    reused = await world.who("bruno").post(
        "contributions", world.body(COMMONS, contribution_id=own)
    )
    assert (problem(reused), field_of(reused)) == (
        (422, "contribution_id_reused"),
        "body.contribution_id",
    )


async def test_who_was_not_told_of_yet_is_told_to_wait(world: World) -> None:
    nobody = world.bank.caller(str(new_id()), "nantes")
    answer = await nobody.post("contributions", world.body(COMMONS))
    assert (problem(answer), field_of(answer)) == ((422, "unknown_member"), "body.giver_id")
    service = world.bank.caller("client:board", "nantes")
    answer = await service.post("contributions", world.body(COMMONS))
    assert (problem(answer), field_of(answer)) == ((422, "invalid"), "body.giver_id")


# ── Edits, disputes, rulings ────────────────────────────────────────────────────────────────────


async def test_every_edit_is_kept(world: World) -> None:
    logged = await world.log("anna", world.to("bruno"), 90, note="shelves")
    path = f"contributions/{logged['contribution_id']}"
    edited = await world.who("anna").patch(path, {"minutes": 60, "activity": "repair"})
    assert edited.json() == logged | {"minutes": 60, "activity": "repair", "version": 2}
    emptied = await world.who("anna").patch(path, {"note": None})
    assert emptied.json()["note"] is None
    versions = (await world.read("bruno", logged)).json()["versions"]
    assert [(v["version"], v["side"], v["minutes"], v["note"]) for v in versions] == [
        (1, "giver", 90, "shelves"),
        (2, "giver", 60, "shelves"),
        (3, "giver", 60, None),
    ]
    for name in ("bruno", "stella"):
        refused = await world.who(name).patch(path, {"minutes": 1})
        assert problem(refused) == (403, "forbidden")
    assert problem(await world.who("chloe").patch(path, {"minutes": 1})) == (404, "not_found")
    assert problem(await world.who("anna").patch(path, {})) == (422, "invalid")


async def test_nobody_confirms_what_they_have_not_read(world: World) -> None:
    read = await world.log("anna", world.to("bruno"), 30)
    path = f"contributions/{read['contribution_id']}"
    await world.who("anna").patch(path, {"minutes": 300})
    refused = await world.act("bruno", "confirm", read)
    assert (problem(refused), field_of(refused)) == ((409, "version_changed"), "body.version")
    assert await world.bank.transfers() == 0
    assert (await world.act("bruno", "confirm", {**read, "version": 2})).status_code == 200
    refused = await world.who("anna").patch(path, {"minutes": 30})
    assert problem(refused) == (409, "contribution_ended")


async def test_of_an_edit_and_a_confirmation_at_once_one_wins(world: World) -> None:
    logged = [await world.log("anna", COMMONS, 10) for _ in range(8)]
    answers = await asyncio.gather(
        *(
            attempt
            for one in logged
            for attempt in (
                world.act("stella", "confirm", one),
                world.who("anna").patch(
                    f"contributions/{one['contribution_id']}", {"minutes": 1000}
                ),
            )
        )
    )
    for confirm, edit in zip(answers[::2], answers[1::2], strict=True):
        assert sorted((confirm.status_code, edit.status_code)) == [200, 409]
    confirmed = sum(answer.status_code == 200 for answer in answers[::2])
    assert await world.balance("anna") == 10 * confirmed


async def test_a_dispute_keeps_both_versions_until_somebody_gives_way(world: World) -> None:
    logged = await world.log("anna", world.to("bruno"), 120)
    same = await world.act("bruno", "dispute", logged, {"minutes": 120})
    assert problem(same) == (422, "nothing_disputed")
    disputed = await world.act("bruno", "dispute", logged, {"minutes": 45, "note": "one shelf"})
    assert disputed.json()["status"] == "disputed"
    assert (disputed.json()["minutes"], disputed.json()["counter"]["minutes"]) == (120, 45)
    ((name, subject),) = await world.told("contribution.disputed")
    assert (name, subject["minutes"], subject["claimed_minutes"]) == ("anna", 45, 120)
    assert "one shelf" not in str(subject)
    assert problem(await world.act("bruno", "accept", disputed.json())) == (403, "forbidden")
    assert problem(await world.act("anna", "accept", logged)) == (409, "version_changed")
    done = (await world.act("anna", "accept", disputed.json())).json()
    # It rests on Bruno's word, and Anna agreed.
    assert (done["confirmed_minutes"], done["confirmed_by"]) == (45, world.id_of("bruno"))
    assert (await world.balance("anna"), await world.balance("bruno")) == (45, -45)
    versions = (await world.read("anna", logged)).json()["versions"]
    assert [(v["side"], v["minutes"]) for v in versions] == [("giver", 120), ("beneficiary", 45)]


async def test_the_beneficiary_may_give_way_too(world: World) -> None:
    logged = await world.log("anna", world.to("bruno"), 120)
    assert problem(await world.act("anna", "accept", logged)) == (409, "not_disputed")
    await world.act("bruno", "dispute", logged, {"minutes": 0})
    edited = await world.who("anna").patch(
        f"contributions/{logged['contribution_id']}", {"minutes": 100}
    )
    assert (edited.json()["status"], edited.json()["version"]) == ("disputed", 3)
    done = (await world.act("bruno", "confirm", edited.json())).json()
    assert (done["status"], done["confirmed_minutes"]) == ("confirmed", 100)


async def test_nothing_accepted_is_a_refusal_without_a_transfer(world: World) -> None:
    logged = await world.log("anna", world.to("bruno"))
    disputed = (await world.act("bruno", "dispute", logged, {"minutes": 0})).json()
    done = (await world.act("anna", "accept", disputed)).json()
    assert (done["status"], done["transfer_id"], done["confirmed_minutes"]) == (
        "refused",
        None,
        None,
    )
    assert await world.bank.transfers() == 0
    assert problem(await world.act("anna", "withdraw", logged)) == (409, "contribution_ended")


@pytest.mark.parametrize(("ruled", "status"), [(70, "confirmed"), (0, "refused")])
async def test_a_mediator_rules(world: World, ruled: int, status: str) -> None:
    logged = await world.log("anna", world.to("bruno"), 120)
    early = await world.act("mia", "rule", logged, {"minutes": 70})
    assert problem(early) == (409, "not_disputed")
    assert problem(await world.read("mia", logged)) == (403, "forbidden")
    await world.act("bruno", "dispute", logged, {"minutes": 45, "note": "one shelf"})
    assert (await world.read("mia", logged)).json()["counter"]["note"] == "one shelf"
    for name in ("anna", "bruno", "stella", "olga"):
        refused = await world.act(name, "rule", logged, {"minutes": 70})
        assert problem(refused) == (403, "forbidden")
    beyond = await world.act("mia", "rule", logged, {"minutes": 121})
    assert (problem(beyond), field_of(beyond)) == ((422, "exceeds_claim"), "body.minutes")
    done = (await world.act("mia", "rule", logged, {"minutes": ruled, "note": "half"})).json()
    assert (done["status"], done["ruling"]["minutes"]) == (status, ruled)
    assert (done["minutes"], done["counter"]["minutes"]) == (120, 45)
    assert (await world.balance("anna"), await world.balance("bruno")) == (ruled, -ruled)
    assert sorted(name for name, _ in await world.told("contribution.ruled")) == ["anna", "bruno"]
    versions = (await world.read("anna", logged)).json()["versions"]
    assert [v["side"] for v in versions] == ["giver", "beneficiary", "mediator"]


async def test_no_party_rules(world: World) -> None:
    for_mia = await world.log("anna", world.to("mia"), 100)
    await world.act("mia", "dispute", for_mia, {"minutes": 1})
    refused = await world.act("mia", "rule", for_mia, {"minutes": 1})
    assert problem(refused) == (403, "forbidden")
    by_mia = await world.log("mia", world.to("bruno"), 100)
    await world.act("bruno", "dispute", by_mia, {"minutes": 1})
    assert problem(await world.act("mia", "rule", by_mia, {"minutes": 100})) == (403, "forbidden")
    stranger = world.bank.caller("max", "bourges", "mediator")
    path = f"contributions/{by_mia['contribution_id']}/rule"
    assert problem(await stranger.post(path, {"minutes": 1})) == (404, "not_found")


async def test_words_come_to_an_end_and_a_ruling_is_always_possible(world: World) -> None:
    logged = await world.log("anna", world.to("bruno"), 100)
    path = f"contributions/{logged['contribution_id']}"
    await world.act("bruno", "dispute", logged, {"minutes": 50})
    for minutes in range(101, 118):
        assert (await world.who("anna").patch(path, {"minutes": minutes})).status_code == 200
    refused = await world.who("anna").patch(path, {"minutes": 99})
    assert problem(refused) == (409, "too_many_versions")
    refused = await world.act("bruno", "dispute", logged, {"minutes": 51})
    assert problem(refused) == (409, "too_many_versions")
    done = await world.act("mia", "rule", logged, {"minutes": 80})
    assert (done.status_code, done.json()["version"]) == (200, 20)


async def test_what_was_not_confirmed_can_be_withdrawn(world: World) -> None:
    for by in ("anna", "stella"):
        logged = await world.log("stella", world.to("bruno"), giver_id=world.id_of("anna"))
        assert problem(await world.act("bruno", "withdraw", logged)) == (403, "forbidden")
        assert problem(await world.act("chloe", "withdraw", logged)) == (404, "not_found")
        assert (await world.act(by, "withdraw", logged)).json()["status"] == "withdrawn"
        for name, step in (("bruno", "confirm"), ("anna", "withdraw")):
            refused = await world.act(name, step, logged)
            assert problem(refused) == (409, "contribution_ended")
    told = [name for name, _ in await world.told("contribution.withdrawn")]
    assert told == ["bruno", "anna", "bruno"]


async def test_a_steward_who_is_no_party_takes_it_back(world: World) -> None:
    done = await world.confirmed("anna", COMMONS, "stella", 60)
    for name in ("anna", "carl", "olga", "mia"):
        assert problem(await world.act(name, "reverse", done)) == (403, "forbidden")
    assert problem(await world.act("chloe", "reverse", done)) == (404, "not_found")
    # Not the transfer alone, behind the contribution's back.
    alone = await world.who("stella").post(f"transfers/{done['transfer_id']}/reverse")
    assert problem(alone) == (409, "not_reversible")
    back = (await world.act("steve", "reverse", done)).json()
    assert (back["status"], back["confirmed_minutes"]) == ("reversed", 60)
    assert (await world.balance("anna"), await world.balance("nantes commons")) == (0, 0)
    reversal = await world.who("anna").get(f"transfers/{back['reversal_id']}")
    assert reversal.json()["reverses"] == done["transfer_id"]
    assert problem(await world.act("stella", "reverse", done)) == (409, "already_reversed")
    assert [name for name, _ in await world.told("contribution.reversed")] == ["anna"]
    for_steve = await world.confirmed("anna", world.to("steve"), "steve", 5)
    assert problem(await world.act("steve", "reverse", for_steve)) == (403, "forbidden")
    logged = await world.log("anna", COMMONS)
    assert problem(await world.act("stella", "reverse", logged)) == (409, "not_confirmed")
    await assert_sound(world)


async def test_what_was_spent_since_is_not_taken_back(world: World) -> None:
    done = await world.confirmed("anna", COMMONS, "stella", 100)
    accounts = world.bank.accounts
    assert (
        await world.who("anna").pay(accounts["anna"], accounts["bruno"], 700)
    ).status_code == 201
    assert problem(await world.act("stella", "reverse", done)) == (409, "insufficient_time")
    assert (await world.read("anna", done)).json()["status"] == "confirmed"


# ── What is no contribution ─────────────────────────────────────────────────────────────────────


NOBODY = "01975d00-0000-7000-8000-000000000000"
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"minutes": 0}, "invalid", "body.minutes"),
    ({"minutes": 1441}, "invalid", "body.minutes"),
    ({"minutes": True}, "invalid", "body.minutes"),
    ({"minutes": "60"}, "invalid", "body.minutes"),
    ({"minutes": 1.5}, "invalid", "body.minutes"),
    ({"minutes": None}, "invalid", "body.minutes"),
    ({"performed_on": "2026-11-24"}, "invalid_day", "body.performed_on"),
    ({"performed_on": "2025-11-21"}, "invalid_day", "body.performed_on"),
    ({"performed_on": "0001-01-01"}, "invalid_day", "body.performed_on"),
    ({"performed_on": "9999-12-31"}, "invalid_day", "body.performed_on"),
    ({"performed_on": "2026-02-30"}, "invalid", "body.performed_on"),
    ({"performed_on": 1795392000}, "invalid", "body.performed_on"),
    ({"performed_on": "2026-11-23T00:00:00"}, "invalid", "body.performed_on"),
    ({"performed_on": "2026-11-2٣"}, "invalid", "body.performed_on"),
    ({"activity": "gossip"}, "invalid", "body.activity"),
    ({"place_id": NOBODY}, "unknown_place", "body.place_id"),
    ({"beneficiary": {"kind": "commons", "id": None, "x": 1}}, "invalid", "body.beneficiary.x"),
    ({"beneficiary": {"kind": "member"}}, "invalid", "body.beneficiary"),
    (
        {"beneficiary": {"kind": "commons", "id": NOBODY}},
        "invalid",
        "body.beneficiary",
    ),
    (
        {"beneficiary": {"kind": "member", "id": NOBODY}},
        "unknown_beneficiary",
        "body.beneficiary.id",
    ),
    (
        {"beneficiary": {"kind": "organisation", "id": NOBODY}},
        "unknown_beneficiary",
        "body.beneficiary.id",
    ),
    ({"note": "x" * 2001}, "invalid", "body.note"),
    ({"note": "a\u202eb"}, "invalid", "body.note"),
    ({"status": "confirmed"}, "invalid", "body.status"),
    ({"giver_id": "anna"}, "invalid", "body.giver_id"),
]


async def test_what_is_no_contribution_is_refused(world: World) -> None:
    for wrong, code, field in WRONG:
        answer = await world.who("anna").post("contributions", world.body(COMMONS) | wrong)
        assert (problem(answer), field_of(answer)) == ((422, code), field), wrong
    assert await world.bank.pool.fetchval("SELECT count(*) FROM contribution") == 0


async def test_the_day_is_that_of_the_city(world: World) -> None:
    """It is the 23rd in Nantes half an hour after midnight, while it is the 22nd in UTC."""
    oldest = TODAY - timedelta(days=366)
    for day in (TODAY, oldest):
        await world.log("anna", COMMONS, performed_on=day.isoformat())
    await world.bank.pool.execute("UPDATE book SET timezone = 'Europe/London'")
    answer = await world.who("anna").post("contributions", world.body(COMMONS))
    assert problem(answer) == (422, "invalid_day")


async def test_a_member_of_another_city_is_as_unknown_as_none(world: World) -> None:
    answer = await world.who("anna").post("contributions", world.body(world.to("chloe")))
    unknown = await world.who("anna").post(
        "contributions", world.body({"kind": "member", "id": str(new_id())})
    )
    assert answer.json() == unknown.json()
    assert problem(answer) == (422, "unknown_beneficiary")


async def test_nobody_contributes_to_themself(world: World) -> None:
    answer = await world.who("anna").post("contributions", world.body(world.to("anna")))
    assert problem(answer) == (422, "same_account")


# ── Together ────────────────────────────────────────────────────────────────────────────────────


async def test_many_give_to_one(world: World) -> None:
    items = [
        world.body(COMMONS, 30, giver_id=world.id_of(name)) for name in ("anna", "bruno", "olga")
    ]
    answer = await world.who("anna").post("contributions/group", {"items": items})
    assert answer.status_code == 201
    group = answer.json()
    assert {item["group_id"] for item in group["items"]} == {group["group_id"]}
    # Who said it for the others does not confirm it, and each can take their own back.
    assert problem(await world.act("anna", "confirm", group["items"][1])) == (
        403,
        "self_confirmation",
    )
    withdrawn = await world.act("bruno", "withdraw", group["items"][1])
    assert withdrawn.json()["status"] == "withdrawn"
    for item in (group["items"][0], group["items"][2]):
        assert (await world.act("stella", "confirm", item)).status_code == 200
    assert (await world.balance("olga"), await world.balance("nantes commons")) == (30, -60)


async def test_one_gives_to_many(world: World) -> None:
    items = [world.body(world.to(name), 20) for name in ("bruno", "olga", "carl")]
    group = (await world.who("anna").post("contributions/group", {"items": items})).json()
    for name, item in zip(("bruno", "olga", "carl"), group["items"], strict=True):
        assert (await world.act(name, "confirm", item)).status_code == 200
    assert await world.balance("anna") == 60
    again = {"group_id": group["group_id"], "items": items}
    refused = await world.who("anna").post("contributions/group", again)
    assert problem(refused) == (422, "group_id_reused")


async def test_a_group_is_logged_whole_or_not_at_all(world: World) -> None:
    ok = world.body(COMMONS, giver_id=world.id_of("anna"))
    cases = [
        ([ok, ok | {"giver_id": world.id_of("chloe")}], "unknown_member", "items.1.giver_id"),
        ([ok, ok | {"performed_on": "2027-01-01"}], "invalid_day", "items.1.performed_on"),
        (
            [ok, ok | {"giver_id": world.id_of("bruno"), "beneficiary": world.to("olga")}],
            "mixed_group",
            "items",
        ),
        ([ok] * 51, "invalid", "items"),
        ([], "invalid", "items"),
    ]
    for items, code, field in cases:
        refused = await world.who("anna").post("contributions/group", {"items": items})
        assert (problem(refused), field_of(refused)) == ((422, code), f"body.{field}")
    same_id = ok | {"contribution_id": str(new_id())}
    refused = await world.who("anna").post("contributions/group", {"items": [same_id, same_id]})
    assert (problem(refused), field_of(refused)) == (
        (422, "contribution_id_reused"),
        "body.items.1.contribution_id",
    )
    others = [ok | {"giver_id": world.id_of(name)} for name in ("olga", "carl")]
    refused = await world.who("anna").post("contributions/group", {"items": others})
    assert problem(refused) == (403, "forbidden")
    assert await world.bank.pool.fetchval("SELECT count(*) FROM contribution") == 0
    allowed = await world.who("stella").post("contributions/group", {"items": others})
    assert allowed.status_code == 201
