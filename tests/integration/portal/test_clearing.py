"""Minutes between cities: giving them, seeing how far they are, and what the stewards agree."""

from typing import Any
from uuid import UUID

import httpx
import pytest

FakeNetwork = Any
Submit = Any

EMAIL, PASSWORD = "claire@example.org", "correct horse"


async def test_time_is_given_to_a_member_of_another_city(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit
) -> None:
    network.clearing.add_agreement(levy_out_permille=25)
    network.clearing.add_agreement("lyon", state="suspended")
    network.add_person("Paul Martin")
    paul = network.add_person("Paul Martin", city="rennes")
    page = (await member.get("/time/give")).text
    assert '<option value="" selected>Nantes</option>' in page
    assert (
        '<option value="rennes">Rennes (2.5% more for your own city’s community)</option>' in page
    )
    assert "lyon" not in page
    answer = await submit(
        member, "/time/give", city="rennes", person="paul martin", minutes="1h", memo="vélo"
    )
    ((path, body),) = network.clearing.bodies
    transfer_id = body.pop("transfer_id")
    assert answer.headers["location"] == f"/time/between/{transfer_id}"
    assert network.clearing.keys == [transfer_id]
    assert path == "/v1/clearing/transfers"
    assert body == {
        "from_account": str(account),
        "to": {"city_id": "rennes", "member_id": paul},
        "minutes": 60,
        "memo": "vélo",
    }
    assert not network.transfers
    page = (await member.get(answer.headers["location"])).text
    assert "Set aside from your account: 1 h. Rennes decides, usually within a second." in page
    assert "Paul Martin, Rennes" in page
    assert "See how far it is" in page


async def test_without_an_agreement_no_city_is_asked_for(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID
) -> None:
    assert 'name="city"' not in (await member.get("/time/give")).text


async def test_who_is_not_in_that_city_s_directory_is_not_found(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit
) -> None:
    network.clearing.add_agreement()
    network.add_person("Paul Martin")
    page = await submit(member, "/time/give", city="rennes", person="Paul Martin", minutes="60")
    assert page.status_code == 422
    assert "Nobody of this name in that city is seen by other cities." in page.text
    assert '<option value="rennes" selected>Rennes</option>' in page.text
    assert not network.clearing.bodies
    assert not network.transfers


async def test_an_account_number_does_not_reach_another_city(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit
) -> None:
    network.clearing.add_agreement()
    other = "0192f000-0000-7000-8000-000000000001"
    page = await submit(member, "/time/give", city="rennes", to_account=other, minutes="60")
    assert page.status_code == 422
    assert "leave this field empty" in page.text
    assert not network.transfers


async def test_the_city_that_was_chosen_stays_when_the_agreements_cannot_be_had(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit
) -> None:
    network.clearing.away = True
    page = await submit(member, "/time/give", city="rennes", person="Paul", minutes="x")
    assert '<option value="rennes" selected>Rennes</option>' in page.text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("limit_reached", "The limit that the two cities agreed on would be passed."),
        ("no_agreement", "The two cities have no agreement in force right now."),
        ("clearing_off", "Your city does not exchange time with others yet."),
    ],
)
async def test_why_nothing_was_set_aside_is_said_in_words(
    member: httpx.AsyncClient,
    network: FakeNetwork,
    account: UUID,
    submit: Submit,
    code: str,
    words: str,
) -> None:
    network.clearing.add_agreement()
    network.add_person("Paul Martin", city="rennes")
    network.clearing.refuse = code
    page = await submit(member, "/time/give", city="rennes", person="Paul Martin", minutes="60")
    assert page.status_code == 422
    assert words in page.text


async def test_an_answer_that_is_lost_keeps_the_id(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit
) -> None:
    network.clearing.add_agreement()
    network.add_person("Paul Martin", city="rennes")
    network.clearing.lose_answer = True
    page = await submit(member, "/time/give", city="rennes", person="Paul Martin", minutes="60")
    assert page.status_code == 503
    assert f'name="transfer_id" value="{network.clearing.keys[0]}"' in page.text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"state": "settled", "answered_at": "2026-11-22T10:00:01Z"},
            "Done. Arrived in Rennes: 1 h.",
        ),
        ({"overdue": True}, "Rennes should have answered by now. The time stays set aside (1 h)"),
        (
            {"state": "returned", "reason": "payee_closed", "levy_minutes": 6},
            "Back on your account: 1 h 06.",
        ),
        ({"state": "returned", "reason": "payee_closed"}, "This person’s account is closed."),
        ({"state": "returned", "reason": "moon"}, "a reason that this page does not know"),
        ({"state": "moon"}, "state unknown"),
    ],
)
async def test_how_far_a_transfer_is_told_plainly(
    member: httpx.AsyncClient, network: FakeNetwork, given: dict[str, Any], words: str
) -> None:
    one = network.clearing.add_sent(**given)
    assert words in (await member.get(f"/time/between/{one['transfer_id']}")).text


async def test_somebody_else_s_transfer_is_not_there(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    page = await member.get("/time/between/0192f000-0000-7000-8000-000000000001")
    assert page.status_code == 404


async def test_the_time_page_shows_what_crossed(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID
) -> None:
    assert "With other cities" not in (await member.get("/time")).text
    paul = network.add_person("Paul Martin", city="rennes")
    network.clearing.add_sent(payee=paul, state="returned", reason="limit_reached")
    network.clearing.add_received(peer_city_id="lyon", levy_minutes=5)
    page = (await member.get("/time")).text
    assert "Given to Rennes, Paul Martin" in page
    assert "The limit that the two cities agreed on is reached." in page
    assert "Received from Lyon" in page
    assert "+ 1 h 25" in page
    network.clearing.away = True
    page = await member.get("/time")
    assert page.status_code == 200
    assert "cannot be shown right now" in page.text


async def test_the_lists_go_on(member: httpx.AsyncClient, network: FakeNetwork) -> None:
    for _ in range(21):
        network.clearing.add_received()
    page = (await member.get("/time/between?side=received")).text
    assert page.count("Received from Rennes") == 20
    assert "side=received&amp;cursor=" in page
    assert "Nothing for now." in (await member.get("/time/between")).text
