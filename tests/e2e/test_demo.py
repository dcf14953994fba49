"""The first door opens: what a newcomer sees; and a resident's day. On one network: starting one
takes longer than anything here."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from jsonschema import Draft202012Validator
from seeded_network import SeededNetwork

from copass.demo import STEPS
from copass.demo_api import ApiError, open_api
from copass.demo_check import converged
from copass.demo_state import ADMIN, service_urls

sys.path.insert(0, str(Path(__file__).parent))

from residents_day import Day, first_of, the_events_alone_give_the_same_books, today

EVENTS = Path(__file__).parents[2] / "contracts" / "events"

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def test_the_story_holds_and_can_be_told_again_in_the_other_language(
    network: SeededNetwork,
) -> None:
    for lang in ("fr", "en"):
        told = network.copass.run("demo", "--lang", lang, timeout_s=300)
        assert told.returncode == 0, told.stdout + told.stderr
        assert told.stdout.count("✓") == len(STEPS)
        assert all(step.title[lang] in told.stdout for step in STEPS)


def test_the_story_holds_after_the_demo_card_was_blocked(network: SeededNetwork) -> None:
    run = network.run
    login = run["logins"]["member"]
    form = {
        "grant_type": "password",
        "username": login["email"],
        "password": login["password"],
    }
    with httpx.Client(base_url=run["identity"], timeout=30) as identity:
        token = identity.post("/v1/oauth/token", data=form).json()["access_token"]
        identity.headers["Authorization"] = f"Bearer {token}"
        for card in identity.get("/v1/cards").json()["items"]:
            blocked = identity.post(
                f"/v1/cards/{card['card_id']}/block",
                json={"reason": "lost"},
                headers={"Idempotency-Key": f"test-{card['card_id']}"},
            )
            assert blocked.status_code == 200, blocked.text
    told = network.copass.run("demo", timeout_s=300)
    assert told.returncode == 0, told.stdout + told.stderr


def test_a_second_seed_changes_nothing(network: SeededNetwork) -> None:
    before = (network.home / "demo.json").read_text(encoding="utf-8")
    again = network.copass.run("seed", timeout_s=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "already seeded" in again.stderr
    assert (network.home / "demo.json").read_text(encoding="utf-8") == before


def test_a_seed_that_lost_its_notes_finds_everything_there(network: SeededNetwork) -> None:
    before = json.loads((network.home / "demo.json").read_text(encoding="utf-8"))
    (network.home / "demo.json").unlink()
    again = network.copass.run("seed", timeout_s=600)
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads((network.home / "demo.json").read_text(encoding="utf-8")) == before


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What the first test made, for those after it."""
    return {}


@pytest.fixture
async def day(network: SeededNetwork, made: dict[str, Any]) -> AsyncIterator[Day]:
    async with open_api(service_urls(Path(network.home))) as api:
        day = Day(api, **made)
        if not made:
            day.house_id, day.home = await day.build("bourges", "private")
            _, day.away = await day.build("nantes", "public")
            await day.join("stella", "steward")
            await day.join("anouk", "animator", at_home=True)
            made |= {name: getattr(day, name) for name in ("logins", "ids", "uids")}
            made |= {name: getattr(day, name) for name in ("house_id", "home", "away")}
        yield day


async def test_two_hours_of_work_open_a_door_in_another_city(
    day: Day, network: SeededNetwork
) -> None:
    assert day.home
    assert day.away
    home, away = day.home, day.away
    await day.join("louise", "resident", at_home=True)
    # She has just come: nobody owes before having promised anything.
    await day.until("louise", away, "grant", "network_member")
    await day.until("louise", home, "grant", "resident")
    await day.until_standing("louise", "good")

    # Her steward writes down what she promised two months ago.
    pledge = await day.say(
        "stella",
        "pledges",
        {
            "member_id": str(day.ids["louise"]),
            "minutes_per_month": 60,
            "skills": ["cuisine"],
            "starts_on": first_of(2).isoformat(),
        },
    )
    await day.until_standing("louise", "lapsed")
    await day.until("louise", away, "deny", "standing_lapsed")
    assert (await day.tap("louise", home)).reason == "resident"

    # Two hours in the kitchen of the house, logged, and confirmed by somebody else.
    logged = await day.say(
        "louise",
        "contributions",
        {
            "beneficiary": {"kind": "commons"},
            "minutes": 120,
            "performed_on": today().isoformat(),
            "activity": "cooking",
        },
    )
    path = f"contributions/{logged['contribution_id']}"
    version = {"version": logged["version"]}
    with pytest.raises(ApiError) as refused:
        await day.say("louise", f"{path}/confirm", version)
    assert refused.value.code == "self_confirmation"
    assert (await day.tap("louise", away)).reason == "standing_lapsed"
    done = await day.say("anouk", f"{path}/confirm", version)
    assert (done["status"], done["confirmed_minutes"]) == ("confirmed", 120)

    months = (await day.ask("louise", f"pledges/{pledge['pledge_id']}"))["periods"]
    assert [month["state"] for month in months] == ["met", "met", "open"]
    assert await day.balance("louise") == 0  # both hours are what she had promised
    await day.until_standing("louise", "good")
    await day.until("louise", away, "grant", "network_member")
    history = (await day.ask("louise", f"standings/{day.ids['louise']}/history"))["items"]
    assert [line["standing"] for line in history] == ["good", "lapsed", "good"]

    # It was a mistake: the steward takes it back, and with it what it had met.
    await day.say("stella", f"{path}/reverse")
    await day.until_standing("louise", "lapsed")
    await day.until("louise", away, "deny", "standing_lapsed")
    assert (await day.tap("louise", home)).reason == "resident"
    assert await day.balance("louise") == 0

    # The fund of the city helps with the same two hours, and nobody at the door knows.
    await day.say("anouk", "solidarity/gifts", {"minutes": 120, "anonymous": True})
    wanted = {"minutes": 120, "for": "pledge", "reason": "ill"}
    asked = await day.say("louise", "solidarity/requests", wanted)
    request = f"solidarity/requests/{asked['request_id']}"
    await day.say("stella", f"{request}/grant", {})
    await day.until_standing("louise", "good")
    await day.until("louise", away, "grant", "network_member")
    with pytest.raises(ApiError) as hidden:
        await day.ask("anouk", request)
    assert hidden.value.status == 404

    # Minutes set aside stay so, and are told.
    own = await day.ask("anouk", "accounts", owner_id=day.ids["anouk"])
    commons = await day.ask("anouk", "accounts", city_id="bourges", kind="commons")
    held = {
        "from_account": own["items"][0]["account_id"],
        "to_account": commons["items"][0]["account_id"],
        "minutes": 15,
        "expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
    }
    await day.say("anouk", "holds", held)

    book = await day.api.get("timebank", "/v1/books/bourges", ADMIN)
    assert book["sum_minutes"] == 0
    verified = await asyncio.to_thread(
        network.copass.run, "run", "timebank", "verify-books", timeout_s=120
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert await converged(network.stores, within_s=60) == []
    await the_events_alone_give_the_same_books(network)


async def test_whatever_a_city_decides_about_a_resident_they_come_home(day: Day) -> None:
    assert day.home
    assert day.away
    await day.join("marius", "resident", at_home=True)
    await day.until("marius", day.away, "grant", "network_member")
    await day.make("identity", f"members/{day.ids['marius']}/suspend", {})
    await day.until("marius", day.away, "deny", "member_suspended")
    assert (await day.tap("marius", day.home)).reason == "resident"


def test_a_simulated_day_is_in_the_history(network: SeededNetwork, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ("--minutes", "0.1", "--taps-per-second", "25", "--members", "60", "--verify")
    played = network.copass.run("simulate", *options, "--report", str(report), timeout_s=300)
    assert played.returncode == 0, played.stdout + played.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["answered"] == found["planned"] == len(found["taps"])
    assert found["history"] == {"missing": [], "duplicated": [], "different": []}
    assert found["blocked_cards"]
    assert found["visits_to_other_cities"] > 0
    assert {"network_member", "unknown_credential", "exit"} <= found["reasons"].keys()


async def test_all_copies_agree_when_nothing_changes_any_more(network: SeededNetwork) -> None:
    assert await converged(network.stores, within_s=60) == []


async def test_every_event_is_what_the_contracts_say(network: SeededNetwork) -> None:
    """Of each type, what was told last from an outbox, after a day of the whole network."""
    told: set[str] = set()
    wrong: list[str] = []
    for service, url in network.stores.databases.items():
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch(
                "SELECT topic, type, key, payload FROM (SELECT *, row_number() OVER"
                " (PARTITION BY type ORDER BY id DESC) AS place FROM outbox) AS recent"
                " WHERE place <= 200"
            )
        finally:
            await connection.close()
        for row in rows:
            schema = json.loads((EVENTS / f"{row['type']}.json").read_text(encoding="utf-8"))
            check = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
            found = [error.message for error in check.iter_errors(json.loads(row["payload"]))]
            if found or schema["x-topic"] != row["topic"]:
                wrong.append(f"{service} {row['type']} {row['key']}: {found}")
            told.add(row["type"])
    assert not wrong, "\n".join(wrong[:20])
    assert {
        "identity.card.changed.v1",
        "places.place.changed.v1",
        "timebank.transfer.posted.v1",
        "timebank.account.changed.v1",
        "timebank.hold.changed.v1",
        "timebank.standing.changed.v1",
        "timebank.pledge.changed.v1",
        "timebank.contribution.changed.v1",
        "timebank.listing.changed.v1",
        "timebank.exchange.changed.v1",
        "timebank.notice.v1",
    } <= told
