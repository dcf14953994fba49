"""The pledge, the standing and solidarity, told in plain sentences."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from fake_promises import period

FakeNetwork = Any
Submit = Any

EMAIL, PASSWORD = "claire@example.org", "correct horse"


async def test_the_month_is_a_plain_sentence(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID
) -> None:
    network.promises.add_pledge(carried_minutes=30)
    page = (await member.get("/time")).text
    for text in (
        "1 h 30 of 4 h given this month. 2 h 30 left until Monday 30 November.",
        '<progress aria-labelledby="progress-text" max="240" value="90">',
        "30 min ahead",
        "Your co-pass opens the places of the network",
    ):
        assert text in page, text


@pytest.mark.parametrize(
    ("standing", "state", "words"),
    [
        (
            "grace",
            "grace",
            "1 h missing for October 2026: to be given by the end of Saturday 14 November.",
        ),
        (
            "lapsed",
            "lapsed",
            "1 h missing for October 2026: it was due by the end of Saturday 14 November.",
        ),
    ],
)
async def test_what_is_short_is_said_with_what_to_do(
    member: httpx.AsyncClient,
    network: FakeNetwork,
    account: UUID,
    standing: str,
    state: str,
    words: str,
) -> None:
    network.promises.standing = standing
    network.promises.add_pledge(
        periods=[period("2026-10-01", 240, 180, state), period("2026-11-01", 240, 0, "open")]
    )
    page = (await member.get("/time")).text
    assert words in page
    if standing == "lapsed":
        assert "Your own door always opens" in page


async def test_who_is_exempt_reads_until_when_and_no_reason(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID
) -> None:
    network.promises.standing, network.promises.exempt_until = "exempt", "2026-12-31"
    page = (await member.get("/time")).text
    assert "You owe nothing for now" in page
    assert "Until Thursday 31 December." in page


async def test_a_pledge_is_made_changed_and_ended(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    answer = await submit(member, "/time/pledge", minutes="4h", skills="Cuisine, vélo")
    assert answer.headers["location"] == "/time/pledge"
    ((path, body),) = network.promises.bodies
    assert path == "/v1/pledges"
    pledge_id = body.pop("pledge_id")
    assert body == {"minutes_per_month": 240, "skills": ["cuisine", "velo"]}
    page = (await member.get("/time/pledge")).text
    assert 'value="4h"' in page
    assert "up to 10 h ahead" in page
    assert "made up for 14 days" in page
    await submit(member, "/time/pledge", minutes="0", skills="")
    assert network.promises.bodies[1] == (
        f"/v1/pledges/{pledge_id}",
        {"minutes_per_month": 0, "skills": []},
    )
    await submit(member, "/time/pledge", to=f"/time/pledge/{pledge_id}/end")
    assert network.promises.bodies[2][0] == f"/v1/pledges/{pledge_id}/end"
    assert "Make a pledge" in (await member.get("/time/pledge")).text


@pytest.mark.parametrize("wrong", [{"minutes": "101h"}, {"minutes": "much"}, {"skills": "x"}])
async def test_a_pledge_that_cannot_be_is_not_sent(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit, wrong: dict[str, str]
) -> None:
    page = await submit(member, "/time/pledge", **{"minutes": "4h", "skills": "", **wrong})
    assert page.status_code == 422
    assert 'aria-invalid="true"' in page.text
    assert not network.promises.bodies


async def test_a_change_that_comes_is_told(member: httpx.AsyncClient, network: FakeNetwork) -> None:
    network.promises.add_pledge(
        terms=[
            {"from_month": "2026-10-01", "minutes_per_month": 240},
            {"from_month": "2026-12-01", "minutes_per_month": 120},
        ]
    )
    page = (await member.get("/time/pledge")).text
    assert "From December 2026 on: 2 h a month." in page
    assert 'value="2h"' in page


async def test_minutes_are_given_to_the_fund(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    page = await submit(member, "/time/solidarity/give", minutes="")
    assert page.status_code == 422
    answer = await submit(member, "/time/solidarity/give", minutes="30", anonymous="yes")
    assert answer.status_code == 303
    (gift,) = network.promises.gifts
    assert (gift["minutes"], gift["anonymous"]) == (30, True)
    assert "Thank you" in (await member.get(answer.headers["location"])).text


async def test_help_is_asked_for_and_taken_back(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    answer = await submit(
        member, "/time/solidarity/ask", minutes="2h", purpose="pledge", reason="Malade"
    )
    assert answer.status_code == 303
    ((_, body),) = network.promises.bodies
    assert (body["minutes"], body["for"], body["reason"]) == (120, "pledge", "Malade")
    page = (await member.get("/time/solidarity/ask")).text
    assert "Withdraw this request" in page
    request_id = network.promises.requests[0]["request_id"]
    await submit(
        member, "/time/solidarity/ask", to=f"/time/solidarity/requests/{request_id}/withdraw"
    )
    assert network.promises.requests[0]["status"] == "withdrawn"


async def test_a_steward_reads_why_and_decides_but_not_of_their_own(
    visitor: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.me["roles"] = ["member", "steward"]
    await submit(visitor, "/sign-in", email=EMAIL, password=PASSWORD)
    network.promises.add_request(reason="Trois <script> semaines")
    network.promises.add_request(member_id=network.me["member_id"], minutes=45)
    page = (await visitor.get("/time/solidarity/requests")).text
    assert "Trois &lt;script&gt; semaines" in page
    assert "It is yours: another steward decides." in page
    assert page.count("/grant") == 1
    first = network.promises.requests[0]["request_id"]
    path = f"/time/solidarity/requests/{first}"
    assert (
        await submit(visitor, "/time/solidarity/requests", to=f"{path}/grant", minutes="some")
    ).status_code == 422
    network.promises.refuse = "insufficient_time"
    short = await submit(visitor, "/time/solidarity/requests", to=f"{path}/grant", minutes="2h")
    assert short.status_code == 409
    assert "The fund does not have enough time" in short.text
    network.promises.refuse = None
    await submit(visitor, "/time/solidarity/requests", to=f"{path}/grant", minutes="1h")
    assert network.promises.bodies[1:] == [(f"/v1{path[5:]}/grant", {"minutes": 60})]
    assert network.promises.requests[0]["status"] == "granted"


async def test_others_read_nobodys_request(member: httpx.AsyncClient, network: FakeNetwork) -> None:
    assert (await member.get("/time/solidarity/requests")).status_code == 403
