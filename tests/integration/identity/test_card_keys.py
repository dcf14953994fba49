"""Cryptographic cards: issued, programmed from their sheet, and then what they say is believed."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from identity_network import Caller, Network, TestClock, make_settings, running
from ntag_card import NtagCard, message_of

from copass_tap.ntag424 import Picc, load_keys
from identity.app import MIGRATIONS

UID = "04DE5F1EACC040"
KEYS = [{"meta": "0f" * 16, "master": "1e" * 16}]


@pytest.fixture
async def network(make_database: Any, tmp_path: Path) -> AsyncIterator[Network]:
    path = tmp_path / "card-keys.json"
    path.write_text(json.dumps(KEYS))
    settings = make_settings(await make_database("identity", MIGRATIONS), card_keys=f"file:{path}")
    async with running(settings, TestClock()) as network:
        await network.city("nantes")
        yield network


async def issued(network: Network, kind: str = "ntag424") -> tuple[Caller, dict[str, Any]]:
    holder, member = await network.somebody("nantes")
    card = {"member_id": member["member_id"], "type": kind, "uid": UID}
    return holder, await network.admin.made("/v1/cards", card)


async def test_a_card_programmed_from_its_sheet_is_believed(network: Network) -> None:
    _, card = await issued(network)
    assert card["type"] == "ntag424"
    path = f"/v1/cards/{card['card_id']}/personalisation"
    answer = await network.admin.post(path, {"uid": UID.lower()})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    chip = NtagCard.programmed(answer.json())
    (keys,) = load_keys(network.settings.card_keys)
    for reading in (1, 2):
        picc_data, mac = message_of(chip.read())
        found = keys.read(bytes.fromhex(picc_data), bytes.fromhex(mac))
        assert found == Picc(bytes.fromhex(UID), reading)


async def test_who_was_shown_keys_is_kept_and_the_keys_are_not(network: Network) -> None:
    _, card = await issued(network)
    path = f"/v1/cards/{card['card_id']}/personalisation"
    sheet = (await network.admin.post(path, {"uid": UID}, key="once")).json()
    assert (await network.admin.post(path, {"uid": UID}, key="once")).json() == sheet
    rows = await network.conn.fetch("SELECT card_id, shown_to FROM card_key_disclosure")
    (admin,) = await network.conn.fetch("SELECT member_id FROM member WHERE city_id IS NULL")
    assert [(str(row["card_id"]), row["shown_to"]) for row in rows] == [
        (card["card_id"], str(admin["member_id"]))
    ]
    tables = await network.conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    kept = ""
    for table in tables:
        kept += str(await network.conn.fetch(f'SELECT t::text FROM "{table["tablename"]}" t'))
    for secret in (*(item["key"] for item in sheet["keys"]), UID):
        assert secret.lower() not in kept.lower()


async def test_keys_are_for_who_gives_out_cards_and_for_the_card_in_hand(network: Network) -> None:
    holder, card = await issued(network)
    path = f"/v1/cards/{card['card_id']}/personalisation"
    assert (await holder.post(path, {"uid": UID})).status_code == 403
    await network.city("brest")
    stranger, _ = await network.somebody("brest", "steward", "operator")
    assert (await stranger.post(path, {"uid": UID})).status_code == 404
    other = await network.admin.post(path, {"uid": "04DE5F1EACC041"})
    assert (other.status_code, other.json()["code"]) == (422, "uid_of_another_card")
    short = await network.admin.post(path, {"uid": "04DE5F1E"})
    assert (short.status_code, short.json()["code"]) == (422, "uid_malformed")
    assert await network.conn.fetchval("SELECT count(*) FROM card_key_disclosure") == 0


async def test_a_plain_card_has_no_keys(network: Network) -> None:
    _, card = await issued(network, "uid")
    answer = await network.admin.post(f"/v1/cards/{card['card_id']}/personalisation", {"uid": UID})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_programmable")


async def test_a_plain_card_is_replaced_by_a_better_one(network: Network) -> None:
    _, card = await issued(network, "uid")
    body = {"type": "ntag424", "uid": "04DE5F1EACC041"}
    answer = await network.admin.post(f"/v1/cards/{card['card_id']}/replace", body)
    assert (answer.status_code, answer.json()["type"]) == (201, "ntag424")


async def test_a_network_without_keys_says_so(make_database: Any) -> None:
    settings = make_settings(await make_database("identity", MIGRATIONS))
    async with running(settings, TestClock()) as network:
        await network.city("nantes")
        _, card = await issued(network)
        answer = await network.admin.post(
            f"/v1/cards/{card['card_id']}/personalisation", {"uid": UID}
        )
    assert (answer.status_code, answer.json()["code"]) == (409, "no_card_keys")


@pytest.mark.parametrize("url", ["http://copass.example/c", "https://" + "x" * 300])
def test_a_link_that_no_card_can_hold_is_refused_at_start(url: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        make_settings("postgresql://nowhere", card_url=url)
