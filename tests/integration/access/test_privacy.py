"""A member has what access keeps of them; nobody else does."""

import io
import json
import zipfile
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from access_world import STEWARD, World

from access import store

ME, OTHER = str(uuid4()), str(uuid4())
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def as_member(sub: str) -> dict[str, str]:
    return {"authorization": f"Bearer {sub}:nantes:member"}


def tap(member_id: str, decision_id: UUID) -> store.TapRow:
    return store.TapRow(
        decision_id=decision_id,
        tap_id=uuid4(),
        door_id=uuid4(),
        place_id=uuid4(),
        city_id="nantes",
        reader_id=uuid4(),
        card_id=uuid4(),
        member_id=UUID(member_id),
        direction="in",
        mode="live",
        decision="grant",
        reason="network_member",
        occurred_at=NOW,
        decided_at=NOW,
        policy_version=1,
        stream_id="1-0",
    )


@pytest.fixture
async def taps(world: World) -> list[store.TapRow]:
    """Two of mine and one of somebody else's."""
    made = [tap(member, uuid4()) for member in (ME, ME, OTHER)]
    async with world.pool.acquire() as conn:
        await store.insert_taps(conn, made)
        await conn.execute(
            "INSERT INTO place_lockdown VALUES (gen_random_uuid(), 'nantes', 1, true, '=fire', $1,"
            " now())",
            ME,
        )
    return made


async def test_a_member_has_their_taps(world: World, taps: list[store.TapRow]) -> None:
    answer = await world.http.get(f"/v1/members/{ME}/export", headers=as_member(ME))
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert (document["service"], document["member_id"]) == ("access", ME)
    mine = {str(row.decision_id) for row in taps[:2]}
    assert {row["decision_id"] for row in document["tables"]["taps"]} == mine
    assert [row["reason"] for row in document["tables"]["lockdowns"]] == ["=fire"]
    assert OTHER not in answer.text


async def test_the_same_as_files(world: World, taps: list[store.TapRow]) -> None:
    answer = await world.http.get(f"/v1/members/{ME}/export.zip", headers=as_member(ME))
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = ["access.json", "access/taps.csv", "access/lockdowns.csv"]
        assert archive.namelist() == names
        assert len(json.loads(archive.read("access.json"))["tables"]["taps"]) == 2
        assert b"'=fire" in archive.read("access/lockdowns.csv")


async def test_nobody_else_has_them_and_learns_not_even_that_they_are(
    world: World, taps: list[store.TapRow]
) -> None:
    for headers in (as_member(OTHER), STEWARD):
        for suffix in ("export", "export.zip"):
            theirs = await world.http.get(f"/v1/members/{ME}/{suffix}", headers=headers)
            absent = await world.http.get(f"/v1/members/{uuid4()}/{suffix}", headers=headers)
            assert theirs.status_code == absent.status_code == 404
            assert theirs.content == absent.content
    assert (await world.http.get(f"/v1/members/{ME}/export")).status_code == 401


async def test_an_export_is_bounded(world: World, taps: list[store.TapRow]) -> None:
    async with world.pool.acquire() as conn:
        tables = await store.export_of(conn, UUID(ME), limit=1)
    assert len(tables["taps"]) == 1
