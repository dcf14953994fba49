"""The exchange board: searching, listing, asking, agreeing, lending."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

FakeNetwork = Any
Submit = Any

EMAIL, PASSWORD = "claire@example.org", "correct horse"
LISTING = {
    "kind": "offer",
    "what": "service",
    "title": "Réparation de vélo",
    "category": "repair",
    "price": "1h",
    "visibility": "city",
}


@pytest.fixture(autouse=True)
def the_members_own(network: FakeNetwork) -> None:
    network.board.me = network.me["member_id"]


async def test_a_search_passes_its_filters_on_and_says_why_each_was_found(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.add_person("Paul Martin", "0192f000-0000-7000-8000-0000000000c1")
    network.add_place("Halle", latitude=47.2, longitude=-1.55)
    listing = network.board.add(category="tools")
    network.board.hits = [
        {
            "listing": listing,
            "distance_m": 1240,
            "reasons": [
                {"word": "velo", "found_in": "title"},
                {"word": "roues", "found_in": "similar"},
            ],
        }
    ]
    page = await member.get(
        "/board",
        params={
            "q": "vélo",
            "kind": "offer",
            "what": "service",
            "category": "tools",
            "near": "halle",
            "radius": "5000",
            "free": "true",
        },
    )
    assert page.status_code == 200, page.text
    assert network.board.asked == [
        {
            "q": "vélo",
            "kind": "offer",
            "what": "service",
            "category": "tools",
            "free": "true",
            "lat": "47.20000",
            "lon": "-1.55000",
            "radius_m": "5000",
            "limit": "20",
        }
    ]
    for text in (
        "Paul Martin",
        "1.2 km away",
        "“velo” is in the title",
        "nearly “roues”",
        '<option value="offer" selected>',
        'value="halle"',
    ):
        assert text in page.text, text


async def test_a_position_is_typed_as_well_as_a_place(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    await member.get("/board", params={"near": "47,2 ; -1,5"})
    assert network.board.asked[0]["lat"] == "47.20000"
    assert network.board.asked[0]["lon"] == "-1.50000"
    assert "radius_m" not in network.board.asked[0]


async def test_somewhere_that_nobody_knows_is_said_at_its_field(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    page = (await member.get("/board", params={"near": "Atlantis"})).text
    assert "We do not know where that is" in page
    assert "lat" not in network.board.asked[0]


async def test_the_search_goes_on_to_the_next_page_and_outlives_the_register(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    for _ in range(25):
        network.board.add()
    page = (await member.get("/board?kind=offer&q=x")).text
    assert 'href="/board?q=x&amp;kind=offer&amp;cursor=20"' in page
    network.down.add("places")
    page = (await member.get("/board?near=Halle")).text
    assert "The register of places does not answer" in page
    assert "Réparation de vélo" in page


@pytest.mark.parametrize("query", ["kind=x", "what=y", "free=maybe"])
async def test_a_filter_that_is_none_names_no_page(member: httpx.AsyncClient, query: str) -> None:
    assert (await member.get(f"/board?{query}")).status_code == 404


async def test_a_listing_is_published_with_all_that_it_has(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    place = network.add_place("Halle", latitude=47.2, longitude=-1.55)
    answer = await submit(
        member,
        "/board/new?kind=offer&what=lend",
        to="/board/new",
        **{
            **LISTING,
            "what": "lend",
            "text": "Avec <b>mèches</b>",
            "skills": "Perçage, béton",
            "where": "halle",
            "deposit": "2h",
            "schedule": "le soir",
            "from_5": "14:00",
            "until_5": "23:59",
            "available_until": "2026-12-24",
            "visibility": "federation",
        },
    )
    assert answer.status_code == 303, answer.text
    ((_, body),) = network.board.bodies
    listing_id = body.pop("listing_id")
    assert network.board.keys == [listing_id]
    assert answer.headers["location"] == f"/board/{listing_id}"
    assert body == {
        "kind": "offer",
        "what": "lend",
        "title": "Réparation de vélo",
        "text": "Avec <b>mèches</b>",
        "category": "repair",
        "skills": ["percage", "beton"],
        "price_minutes": 60,
        "deposit_minutes": 120,
        "available_until": "2026-12-24",
        "visibility": "federation",
        "schedule": {
            "text": "le soir",
            "slots": [{"weekday": 5, "from": "14:00", "until": "24:00"}],
        },
        "place_id": place,
        "latitude": 47.2,
        "longitude": -1.55,
    }
    page = (await member.get(answer.headers["location"])).text
    for text in ("Avec &lt;b&gt;mèches", "percage, beton", "Saturday 14:00–24:00", "Halle", "2 h"):
        assert text in page, text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"title": ""}, "Write a few words."),
        ({"title": "x" * 201}, "too long"),
        ({"price": "25h"}, "too much"),
        ({"price": "-1"}, "Write a duration"),
        ({"what": "theft"}, ""),
        ({"category": "weapons"}, "Choose one of the answers"),
        ({"skills": "?, !"}, ""),
        ({"skills": "x"}, "Write words"),
        ({"where": "Atlantis"}, "We do not know where"),
        ({"from_1": "14:00"}, "Each day has a beginning and an end"),
        ({"from_1": "14:00", "until_1": "09:00"}, "Each day has"),
        ({"what": "surplus", "quantity": "0"}, "a number from 1"),
        ({"available_until": "tomorrow"}, "Write a date"),
    ],
)
async def test_a_listing_that_cannot_be_is_not_sent(
    member: httpx.AsyncClient,
    network: FakeNetwork,
    submit: Submit,
    wrong: dict[str, str],
    words: str,
) -> None:
    if wrong == {"skills": "?, !"}:  # signs alone are no skill, and nothing wrong
        assert (await submit(member, "/board/new", **{**LISTING, **wrong})).status_code == 303
        return
    page = await submit(member, "/board/new", **{**LISTING, **wrong})
    assert page.status_code == 422
    assert words in page.text
    assert not network.board.bodies


async def test_a_listing_is_changed_closed_and_opened_again(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    one = network.board.add(owner_id=network.board.me, what="surplus", quantity=6, price_minutes=0)
    link = f"/board/{one['listing_id']}"
    page = (await member.get(f"{link}/edit")).text
    assert 'name="kind"' not in page
    assert 'value="6"' in page
    fields = {**LISTING, "title": "Courgettes", "price": "0", "quantity": "4", "what": "lend"}
    answer = await submit(member, f"{link}/edit", **fields)
    assert answer.headers["location"] == link
    _, body = network.board.bodies[0]
    assert (body["title"], body["quantity"]) == ("Courgettes", 4)
    assert "kind" not in body
    assert "deposit_minutes" not in body  # what it is stays what it was
    await submit(member, link, to=f"{link}/close")
    assert "Reopen the listing" in (await member.get(link)).text
    await submit(member, link, to=f"{link}/reopen")
    assert "Close the listing" in (await member.get(link)).text


async def test_weekly_hours_that_the_form_cannot_show_stay(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    slots = [
        {"weekday": 1, "from": "09:00", "until": "10:00"},
        {"weekday": 1, "from": "14:00", "until": "15:00"},
    ]
    one = network.board.add(owner_id=network.board.me, schedule={"text": None, "slots": slots})
    link = f"/board/{one['listing_id']}/edit"
    assert 'name="from_1"' not in (await member.get(link)).text
    await submit(member, link, **LISTING)
    assert network.board.bodies[0][1]["schedule"]["slots"] == slots


async def test_ones_own_listings_and_what_answers_them_with_the_reasons(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    mine = network.board.add(owner_id=network.board.me, title="Cherche perceuse", kind="need")
    theirs = network.board.add(title="Perceuse")
    reasons = [
        ("skill", "beton-arme", "same skill: beton arme"),
        ("category", "tools", "same category: Tools"),
        ("words", "perceux, beton", "same words: perceuse, beton"),
        ("near", "1240", "1.2 km away"),
        ("same_city", "nantes", "same city: Nantes"),
        ("schedule", "90", "same hours, 1 h 30 a week"),
        ("price", "60", "the time asked for fits: 1 h"),
        ("price", "0", "<li>Free</li>"),
    ]
    network.board.matches = [
        {
            "your_listing_id": mine["listing_id"],
            "listing": theirs,
            "points": 12,
            "reasons": [{"code": code, "points": 1, "value": v} for code, v, _ in reasons],
        }
    ]
    page = (await member.get("/board/matches")).text
    assert "Answers: Cherche perceuse" in page
    own = (await member.get(f"/board/{mine['listing_id']}")).text
    for _, _, words in reasons:
        assert words in page
        assert words in own
    assert "Cherche perceuse" in (await member.get("/board/mine")).text
    assert "Perceuse" not in (await member.get("/board/mine")).text


async def test_an_offer_is_asked_for_and_the_answer_awaited(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    one = network.board.add()
    link = f"/board/{one['listing_id']}"
    answer = await submit(member, link, message="Bonjour", minutes="30")
    assert answer.status_code == 303, answer.text
    ((path, body),) = network.board.bodies
    assert path == f"/v1/listings/{one['listing_id']}/requests"
    assert body == {"exchange_id": network.board.keys[0], "message": "Bonjour", "minutes": 30}
    page = (await member.get(answer.headers["location"])).text
    assert "The request waits for an answer." in page
    assert "Cancel" in page
    assert "/agree" not in page


async def test_a_loan_has_days_and_a_giveaway_a_number(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    loan = f"/board/{network.board.add(what='lend')['listing_id']}"
    for days, words in (
        ({}, "Write a date"),
        ({"from": "2026-11-22", "until": "2026-11-25"}, "This day is past."),
        ({"from": "2026-11-25", "until": "2026-11-24"}, "before the first"),
    ):
        page = await submit(member, loan, **days)
        assert page.status_code == 422
        assert words in page.text
    await submit(member, loan, **{"from": "2026-11-24", "until": "2026-11-25"})
    gift = f"/board/{network.board.add(what='surplus', quantity=5)['listing_id']}"
    await submit(member, gift, quantity="3")
    sent = [{**body, "exchange_id": ""} for _, body in network.board.bodies]
    assert sent == [
        {"exchange_id": "", "from": "2026-11-24", "until": "2026-11-25"},
        {"exchange_id": "", "quantity": 3},
    ]


@pytest.mark.parametrize(
    ("status", "mine", "offered"),
    [
        ("requested", True, {"agree", "decline"}),
        ("requested", False, {"cancel"}),
        ("agreed", True, {"cancel"}),
        ("agreed", False, {"handed-over", "cancel"}),
        ("handed_over", True, {"returned", "damaged"}),
        ("handed_over", False, set()),
        ("claimed", True, {"returned"}),
        ("claimed", False, {"accept"}),
        ("returned", True, set()),
        ("settled", False, set()),
    ],
)
async def test_each_side_of_a_loan_is_offered_its_own_steps(
    member: httpx.AsyncClient,
    network: FakeNetwork,
    submit: Submit,
    status: str,
    mine: bool,
    offered: set[str],
) -> None:
    owner = {"owner_id": network.board.me} if mine else {}
    listing = network.board.add(what="lend", deposit_minutes=60, **owner)
    one = network.board.add_exchange(listing, status=status, claimed_minutes=30)
    link = f"/board/exchanges/{one['exchange_id']}"
    page = (await member.get(link)).text
    steps = ("agree", "decline", "cancel", "done", "handed-over", "returned", "damaged", "accept")
    assert {step for step in steps if f'action="{link}/{step}"' in page} == offered
    for step in offered:
        one["status"] = status
        answer = await submit(member, link, to=f"{link}/{step}", minutes="30", note="Rayé")
        assert answer.headers["location"] == link
    claim = {"minutes": 30, "note": "Rayé"}
    assert all(body in ({}, claim) for _, body in network.board.bodies)


async def test_a_mediator_settles_a_claim(
    visitor: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.me["roles"] = ["member", "mediator"]
    await submit(visitor, "/sign-in", email=EMAIL, password=PASSWORD)
    listing = network.board.add(what="lend", deposit_minutes=60)
    one = network.board.add_exchange(
        listing, status="claimed", claimed_minutes=30, requester_id=str(uuid4())
    )
    link = f"/board/exchanges/{one['exchange_id']}"
    await submit(visitor, link, to=f"{link}/rule", minutes="0")
    assert network.board.bodies == [(f"/v1/exchanges/{one['exchange_id']}/rule", {"minutes": 0})]


async def test_a_step_that_is_refused_says_why_and_leads_back(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    listing = network.board.add(owner_id=network.board.me)
    one = network.board.add_exchange(listing)
    link = f"/board/exchanges/{one['exchange_id']}"
    network.board.refuse = "insufficient_time"
    answer = await submit(member, link, to=f"{link}/agree")
    assert answer.status_code == 409
    assert "does not have enough time to set it aside" in answer.text
    assert f'href="{link}"' in answer.text


async def test_exchanges_that_wait_for_the_member_are_marked(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    listing = network.board.add(owner_id=network.board.me)
    network.board.add_exchange(listing)
    network.board.add_exchange(network.board.add())
    page = (await member.get("/board/exchanges")).text
    assert page.count("Your turn") == 1
