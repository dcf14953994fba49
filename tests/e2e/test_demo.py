"""The first door opens: what a newcomer sees."""

import json
from pathlib import Path

import httpx
import pytest
from seeded_network import SeededNetwork

from copass.demo import STEPS
from copass.demo_check import converged

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
    options = ("--minutes", "0.2", "--taps-per-second", "15", "--members", "60", "--verify")
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
