"""What must never be false of contributions is refused by the database too, for whoever writes."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from contribution_world import COMMONS, NOW, TODAY, World, make_world

from common import db
from common.ids import new_id
from timebank import service
from timebank.domain import Actor, Leg, Transfer, TransferRequest
from timebank.verify import verify_books


@pytest.fixture
async def world(bank: Any) -> World:
    return await make_world(bank)


@pytest.fixture
async def logged(world: World) -> dict[str, Any]:
    return await world.log("anna", world.to("bruno"), 60, note="shelves")


@pytest.fixture
async def owner(world: World) -> AsyncIterator[db.Connection]:
    """As the owner of the tables, whom no missing right stops."""
    connection = await db.connect(world.bank.dsn, name="test-owner")
    yield connection
    await connection.close()


REFUSED = (asyncpg.IntegrityConstraintViolationError, asyncpg.RestrictViolationError)


async def refused(owner: db.Connection, *statements: str, **names: str) -> str:
    """The name of the constraint, or the message, that refuses these statements together."""

    async def all_of_them() -> None:
        async with owner.transaction():
            for statement in statements:
                await owner.execute(statement.format(**names))

    with pytest.raises(REFUSED) as error:
        await all_of_them()
    return str(error.value.constraint_name or error.value)


async def test_a_state_that_does_not_follow_is_refused(
    world: World, owner: db.Connection, logged: dict[str, Any]
) -> None:
    one = logged["contribution_id"]
    withdrawn = await world.log("anna", COMMONS)
    await world.act("anna", "withdraw", withdrawn)
    disputed = await world.log("anna", world.to("bruno"))
    await world.act("bruno", "dispute", disputed, {"minutes": 0})
    refusal = await world.log("anna", world.to("bruno"))
    answer = await world.act("bruno", "dispute", refusal, {"minutes": 0})
    await world.act("anna", "accept", answer.json())
    confirmed = await world.confirmed("anna", world.to("bruno"), "bruno")
    reversed_ = await world.confirmed("anna", world.to("bruno"), "bruno")
    await world.act("stella", "reverse", reversed_)
    steps = {
        one: ("refused", "reversed"),
        withdrawn["contribution_id"]: ("logged", "disputed", "confirmed", "withdrawn"),
        disputed["contribution_id"]: ("logged", "reversed"),
        refusal["contribution_id"]: ("logged", "confirmed", "refused"),
        confirmed["contribution_id"]: ("logged", "disputed", "refused", "withdrawn", "confirmed"),
        reversed_["contribution_id"]: ("confirmed", "logged", "reversed"),
    }
    for contribution_id, statuses in steps.items():
        for status in statuses:
            message = await refused(
                owner,
                "UPDATE contribution SET status = '{status}', state_version = state_version + 1"
                " WHERE contribution_id = '{one}'",
                status=status,
                one=contribution_id,
            )
            assert "does not become" in message


async def test_who_confirmed_is_not_who_gave_or_logged(
    world: World, owner: db.Connection, logged: dict[str, Any]
) -> None:
    for_anna = await world.log("stella", COMMONS, giver_id=world.id_of("anna"))
    for one, by in (
        (logged, "anna"),
        (for_anna, "anna"),
        (for_anna, "stella"),
    ):
        named = await refused(
            owner,
            "UPDATE contribution SET status = 'confirmed', state_version = state_version + 1,"
            " confirmed_by = '{by}', confirmed_minutes = 60, decided_at = now(),"
            " transfer_id = '{transfer}' WHERE contribution_id = '{one}'",
            by=world.id_of(by),
            transfer=str(new_id()),
            one=one["contribution_id"],
        )
        assert named == "contribution_confirmed_by_another"


async def test_a_confirmed_contribution_has_the_transfer_that_gives_its_minutes(
    world: World, owner: db.Connection, logged: dict[str, Any]
) -> None:
    confirm = (
        "UPDATE contribution SET status = 'confirmed', state_version = state_version + 1,"
        " confirmed_by = '{by}', confirmed_minutes = 60, decided_at = now(),"
        " transfer_id = '{transfer}' WHERE contribution_id = '{one}'"
    )
    accounts = world.bank.accounts
    paid = await world.who("bruno").pay(accounts["bruno"], accounts["anna"], 60)
    done = await world.confirmed("anna", world.to("bruno"), "bruno", 60)
    names = {"by": world.id_of("bruno"), "one": logged["contribution_id"]}
    # A transfer of the same minutes that is no contribution's; that of another contribution.
    wrong = await refused(owner, confirm, transfer=paid.json()["transfer_id"], **names)
    assert wrong == "contribution_gives_minutes"
    taken = await refused(owner, confirm, transfer=done["transfer_id"], **names)
    assert taken == "contribution_transfer_id_key"
    without = await refused(
        owner,
        "UPDATE contribution SET status = 'confirmed', state_version = state_version + 1,"
        " decided_at = now() WHERE contribution_id = '{one}'",
        **names,
    )
    assert without.startswith("contribution_check")
    changed = await refused(
        owner,
        "UPDATE contribution SET status = 'reversed', confirmed_minutes = 1,"
        " state_version = state_version + 1 WHERE contribution_id = '{one}'",
        one=done["contribution_id"],
    )
    assert "what was confirmed" in changed
    fake = await refused(
        owner,
        "UPDATE contribution SET status = 'reversed', reversal_id = '{paid}', reversed_at = now(),"
        " state_version = state_version + 1 WHERE contribution_id = '{one}'",
        paid=paid.json()["transfer_id"],
        one=done["contribution_id"],
    )
    assert fake == "contribution_takes_back"


async def test_no_transfer_says_it_is_for_a_contribution_that_is_not_there(world: World) -> None:
    done = await world.confirmed("anna", world.to("bruno"), "bruno", 60)
    accounts = world.bank.accounts
    there = TransferRequest(
        transfer_id=new_id(),
        own_id=False,
        key=None,
        actor=Actor("stella", "nantes", steward=True),
        legs=(Leg(accounts["bruno"], -60), Leg(accounts["anna"], 60)),
        purpose="contribution",
    )
    back = replace(
        there,
        legs=tuple(Leg(leg.account_id, -leg.minutes) for leg in there.legs),
        reverses=UUID(done["transfer_id"]),
    )

    async def post(request: TransferRequest) -> None:
        async with world.bank.pool.acquire() as conn, conn.transaction():
            assert isinstance(await service.post_now(conn, request, NOW), Transfer)

    for request in (there, back):
        with pytest.raises(asyncpg.CheckViolationError) as error:
            await post(request)
        assert error.value.constraint_name == "transfer_of_contribution"
    assert await world.balance("anna") == 60


async def test_versions_follow_one_another_and_stay(
    world: World, owner: db.Connection, logged: dict[str, Any]
) -> None:
    say = (
        "INSERT INTO contribution_version (contribution_id, version, side, minutes, performed_on,"
        " activity, written_by, written_at) VALUES ('{one}', {version}, '{side}', {minutes},"
        " '{day}', 'care', 'x', '{now}')"
    )
    names = {
        "one": logged["contribution_id"],
        "side": "giver",
        "minutes": "1",
        "day": TODAY.isoformat(),
        "now": NOW.isoformat(),
    }
    count = (
        "UPDATE contribution SET version = {version}, state_version = state_version + 1"
        " WHERE contribution_id = '{one}'"
    )
    gap = await refused(owner, say, count, **names | {"version": "3"})
    assert gap == "contribution_follows_versions"
    uncounted = await refused(owner, say, **names | {"version": "2"})
    assert uncounted == "contribution_follows_versions"
    unsaid = await refused(owner, count, **names | {"version": "2"})
    assert unsaid == "contribution_follows_versions"
    for wrong in (
        {"minutes": "1441"},
        {"minutes": "-1"},
        {"minutes": "0"},
        {"side": "judge"},
        {"day": (TODAY + timedelta(days=2)).isoformat()},
    ):
        named = await refused(owner, say, count, **names | {"version": "2"} | wrong)
        assert named.startswith("contribution_version_")
    for change in ("minutes = 1", "note = 'other'", "note = NULL, written_by = 'me'"):
        message = await refused(
            owner, "UPDATE contribution_version SET {change}", change=change, **names
        )
        assert "stays, but for its words" in message
    for gone in (
        "DELETE FROM contribution_version",
        "DELETE FROM contribution",
        "TRUNCATE contribution CASCADE",
    ):
        assert "only grows" in await refused(owner, gone)
    await owner.execute("UPDATE contribution_version SET note = NULL")


async def test_the_service_cannot_change_what_a_contribution_is(
    world: World, logged: dict[str, Any]
) -> None:
    for statement in (
        "UPDATE contribution SET giver_id = beneficiary_id",
        "UPDATE contribution SET city_id = 'bourges'",
        "UPDATE contribution SET logged_by = 'me'",
        "UPDATE contribution_version SET minutes = 1",
        "DELETE FROM contribution_version",
        "DELETE FROM contribution",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await world.bank.pool.execute(statement)
    assert (await world.read("anna", logged)).json()["versions"][0]["minutes"] == 60


PLANTED = {
    "another amount": (
        "UPDATE contribution SET confirmed_minutes = 61",
        "61 minutes are not what its transfer gave",
    ),
    "a version gone": ("DELETE FROM contribution_version", "0 versions, not 1"),
    "reversed alone": (
        (
            "UPDATE contribution SET status = 'reversed', reversal_id = transfer_id,"
            " reversed_at = now()"
        ),
        "reversed, but its transfer stands",
    ),
    "a contribution gone": (
        "DELETE FROM contribution",
        "for a contribution that is not there",
    ),
}


async def test_whoever_gets_past_the_database_is_found_by_verify_books(
    world: World, owner: db.Connection
) -> None:
    await world.confirmed("anna", world.to("bruno"), "bruno", 60)
    assert all(report.sound for report in await verify_books(world.bank.dsn))
    # As one with every right and bad intentions: without triggers.
    await owner.execute("SET session_replication_role = replica")
    for change, message in PLANTED.values():
        await owner.execute("CREATE TABLE kept AS TABLE contribution")
        await owner.execute("CREATE TABLE kept_version AS TABLE contribution_version")
        await owner.execute(change)
        (nantes,) = (r for r in await verify_books(world.bank.dsn) if r.city_id == "nantes")
        assert message in "\n".join(nantes.differences)
        await owner.execute("DELETE FROM contribution_version")
        await owner.execute("DELETE FROM contribution")
        await owner.execute("INSERT INTO contribution TABLE kept")
        await owner.execute("INSERT INTO contribution_version TABLE kept_version")
        await owner.execute("DROP TABLE kept, kept_version")
    assert all(report.sound for report in await verify_books(world.bank.dsn))
