"""The first door opens: what a newcomer sees."""

import json
from pathlib import Path

import asyncpg
import httpx
import pytest
from jsonschema import Draft202012Validator
from seeded_network import SeededNetwork

from copass.demo import STEPS
from copass.demo_check import converged

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
