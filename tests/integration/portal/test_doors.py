"""The pages of operators: a place by the hour and as it happens, and how readers are."""

from collections import Counter
from typing import Any

import httpx
import pytest
from fake_doors import DOOR, LIVE

from portal.doors import routes

FakeNetwork = Any
Submit = Any

EMAIL, PASSWORD = "claire@example.org", "correct horse"


@pytest.fixture
async def operator(
    visitor: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> httpx.AsyncClient:
    network.me["roles"] = ["operator"]
    await submit(visitor, "/sign-in", email=EMAIL, password=PASSWORD)
    return visitor


async def test_a_place_is_shown_by_the_hour_and_as_it_happens(
    operator: httpx.AsyncClient, network: FakeNetwork
) -> None:
    door = {"door_id": DOOR, "name": "Entrée <b>", "kind": "public", "opening_hours": None}
    place_id = network.add_place("Halle", doors=[door])
    network.presence[place_id] = {"inside": 3, "capacity": 40}
    assert f'href="/inside/{place_id}"' in (await operator.get("/inside")).text
    answer = await operator.get(f"/inside/{place_id}")
    page = answer.text
    for text in (
        "3 people inside, of 40",
        '<progress max="40" value="3"',
        "09:00</th>",
        "Outside opening hours",
        "1,204",
        "Another reason",
        "Entrée &lt;b&gt;",
        "Place full",
    ):
        assert text in page, text
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    asked = dict(network.doors.asked)
    assert asked[f"/v1/places/{place_id}/occupancy"]["from"] == "2026-11-23T00:00:00+01:00"
    live = await operator.get(f"/inside/{place_id}/live")
    assert live.content == LIVE
    assert live.headers["content-type"].startswith("text/event-stream")
    # One person's open pages leave room for those of others; what ended takes none.
    assert not routes.watching
    with pytest.MonkeyPatch.context() as many:
        many.setattr(
            routes, "watching", Counter({network.me["member_id"]: routes.WATCHERS_OF_ONE_MAX})
        )
        assert (await operator.get(f"/inside/{place_id}/live")).status_code == 503
        routes.watching.subtract([network.me["member_id"]])
        assert (await operator.get(f"/inside/{place_id}/live")).status_code == 200


async def test_readers_that_need_a_look_come_first(
    operator: httpx.AsyncClient, network: FakeNetwork
) -> None:
    page = (await operator.get("/inside/readers")).text
    assert page.index("0000000000b2") < page.index("0000000000b1")
    for text in (
        "Clock off",
        "Other trouble",
        "copass-reader &lt;1&gt;",
        "-2,500 ms",
        "All is well",
    ):
        assert text in page, text


async def test_they_are_for_those_who_look_after_that_city(
    operator: httpx.AsyncClient, network: FakeNetwork
) -> None:
    elsewhere = network.add_place("Halle", city="rennes")
    assert (await operator.get(f"/inside/{elsewhere}")).status_code == 404


async def test_they_are_not_for_members(member: httpx.AsyncClient, network: FakeNetwork) -> None:
    place_id = network.add_place("Halle")
    for path in ("/inside/readers", f"/inside/{place_id}", f"/inside/{place_id}/live"):
        assert (await member.get(path)).status_code == 403


async def test_the_warden_is_shown_who_is_inside_on_asking(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    place_id = network.add_place("Halle")
    path = f"/inside/{place_id}/evacuation"
    page = (await member.get(path)).text
    assert "2 people inside" in page
    assert "Atelier &lt;b&gt;" in page
    assert "Ravélo" not in page
    assert (await member.post(path)).status_code == 403  # not from our form
    shown = (await submit(member, path)).text
    assert "Ravélo Invitée" in shown
    assert "a member" in shown  # one whose name is not known
