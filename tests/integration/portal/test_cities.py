"""What stewards agree with other cities, and where all cities stand with each other."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from fake_clearing import KEY

FakeNetwork = Any
Submit = Any

EMAIL, PASSWORD = "claire@example.org", "correct horse"
CROSSED = "0192f000-0000-7000-8000-0000000000fb"


@pytest.fixture
def roles() -> list[str]:
    return ["member", "steward"]


@pytest.fixture
async def steward(
    network: FakeNetwork, visitor: httpx.AsyncClient, submit: Submit, roles: list[str]
) -> httpx.AsyncClient:
    """A browser of somebody with these roles, in nantes."""
    network.me["roles"] = roles
    answer = await submit(visitor, "/sign-in", email=EMAIL, password=PASSWORD)
    assert answer.status_code == 303
    return visitor


async def test_the_pages_are_not_for_members(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.clearing.add_agreement()
    for path in (
        "/cities",
        "/cities/propose",
        "/cities/with/rennes",
        "/cities/with/rennes/transfers",
        "/cities/positions",
        "/cities/audit",
        "/cities/audit/pair?city=nantes&peer=rennes",
        "/cities/audit/files?table=crossings",
    ):
        assert (await member.get(path)).status_code == 403, path
    assert 'href="/cities"' not in (await member.get("/time")).text


async def test_an_agreement_is_proposed(
    steward: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.cities += [
        {"city_id": "nantes", "name": "Nantes"},
        {"city_id": "rennes", "name": "Rennes"},
    ]
    page = (await steward.get("/cities/propose")).text
    assert '<option value="rennes">Rennes</option>' in page
    assert '<option value="nantes">' not in page
    answer = await submit(
        steward,
        "/cities/propose",
        peer="rennes",
        limit_out="100h",
        limit_in="0",
        soft="75 %",
        levy_out="2,5",
        levy_in="",
    )
    assert answer.headers["location"] == "/cities/with/rennes"
    ((path, body),) = network.clearing.bodies
    assert path == "/v1/agreements"
    assert network.clearing.keys == [body.pop("agreement_id")]
    assert body == {
        "city_id": "nantes",
        "peer_city_id": "rennes",
        "limit_out_minutes": 6000,
        "limit_in_minutes": 0,
        "soft_percent": 75,
        "levy_out_permille": 25,
        "levy_in_permille": 0,
    }
    assert "Rennes has not answered yet." in (await steward.get("/cities/with/rennes")).text


@pytest.mark.parametrize(
    "wrong",
    [
        {"peer": ""},
        {"peer": "nantes"},
        {"peer": "../x"},
        {"limit_out": ""},
        {"limit_in": "-5"},
        {"soft": "0"},
        {"soft": "101"},
        {"levy_out": "50.1"},
        {"levy_in": "2.55"},
    ],
)
async def test_terms_that_cannot_be_are_not_sent(
    steward: httpx.AsyncClient, network: FakeNetwork, submit: Submit, wrong: dict[str, str]
) -> None:
    good = {"peer": "rennes", "limit_out": "100h", "limit_in": "50h", "soft": "80"}
    page = await submit(steward, "/cities/propose", **{**good, **wrong})
    assert page.status_code == 422
    assert 'aria-invalid="true"' in page.text
    assert not network.clearing.bodies


async def test_without_identity_the_name_of_the_city_is_typed(
    steward: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.down.add("identity")
    terms = {"peer": "Rennes", "limit_out": "60", "limit_in": "60", "soft": "80"}
    answer = await submit(steward, "/cities/propose", **terms)
    assert answer.status_code == 303
    assert network.clearing.bodies[0][1]["peer_city_id"] == "rennes"


async def test_a_proposal_is_accepted_once_its_key_was_compared(
    steward: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    made = network.clearing.add_agreement(state="proposed", proposed_by_us=False)
    assert "to accept" in (await steward.get("/cities")).text
    here = "/cities/with/rennes"
    assert "0011 2233 4455 6677" in (await steward.get(here)).text
    page = await submit(steward, here, to=f"{here}/accept", levy_in="1")
    assert page.status_code == 422
    assert "Compare the key first" in page.text
    assert not network.clearing.bodies
    answer = await submit(steward, here, to=f"{here}/accept", levy_in="1", compared="yes")
    assert answer.headers["location"] == here
    assert network.clearing.bodies == [
        ("/v1/agreements/nantes/rennes/accept", {"levy_out_permille": 0, "levy_in_permille": 10})
    ]
    assert made["state"] == "active"


@pytest.mark.parametrize("changed", [{"peer_key": KEY[::-1]}, {"agreement_id": CROSSED}])
async def test_what_was_proposed_since_the_page_was_shown_is_not_accepted(
    steward: httpx.AsyncClient, network: FakeNetwork, changed: dict[str, str]
) -> None:
    made = network.clearing.add_agreement(state="proposed", proposed_by_us=False)
    shown = (await steward.get("/cities/with/rennes")).text
    token = shown.partition('name="form_token" value="')[2].partition('"')[0]
    data = {
        "form_token": token,
        "agreement_id": made["agreement_id"],
        "peer_key": made["peer_key"],
        "compared": "yes",
    }
    made.update(changed)
    page = await steward.post("/cities/with/rennes/accept", data=data)
    assert page.status_code == 422
    assert "The proposal has changed since this page was shown." in page.text
    assert 'value="yes" required checked' not in page.text
    assert not network.clearing.bodies


async def test_an_agreement_is_suspended_resumed_and_ended(
    steward: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.clearing.add_agreement()
    here = "/cities/with/rennes"
    for what, words in (
        ("suspend", "Our city suspended it."),
        ("resume", "in force"),
        ("end", "ended"),
    ):
        assert f'action="{here}/{what}"' in (await steward.get(here)).text
        answer = await submit(steward, here, to=f"{here}/{what}")
        assert answer.headers["location"] == here
        assert network.clearing.bodies[-1][0] == f"/v1/agreements/nantes/rennes/{what}"
        assert words in (await steward.get(here)).text
    assert f'action="{here}' not in (await steward.get(here)).text
    assert len(set(network.clearing.keys)) == 3


async def test_a_step_that_is_refused_says_why(
    steward: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.clearing.add_agreement()
    network.clearing.refuse = "agreement_state"
    page = await submit(steward, "/cities/with/rennes", to="/cities/with/rennes/end")
    assert page.status_code == 409
    assert "The agreement has moved on" in page.text


async def test_limits_are_bars_with_a_warning_in_time(
    steward: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.clearing.add_agreement()
    network.clearing.add_position(
        clearing_minutes=4700,
        in_transit_minutes=100,
        in_transit=2,
        overdue=1,
        oldest_sent_at="2026-11-22T10:00:00Z",
        returned=3,
    )
    for path in ("/cities", "/cities/with/rennes"):
        page = (await steward.get(path)).text
        for text in (
            "To Rennes, Nantes gave 78 h 20 more than it received.",
            "Given, limit: 80 h of 100 h (80%)",
            'max="6000" value="4800"',
            "close to the limit",
            "Received, limit: 0 min of 50 h (0%)",
            "2 gifts on their way, 1 h 40.",
            "1 answer overdue",
            "3 gifts came back.",
        ):
            assert text in page, (path, text)
        assert page.count("close to the limit") == 1
    network.clearing.positions[0]["in_transit_minutes"] = 99
    assert "close to the limit" not in (await steward.get("/cities")).text


async def test_who_changed_what_is_told(steward: httpx.AsyncClient, network: FakeNetwork) -> None:
    network.clearing.add_agreement()
    paul = network.add_person("Paul Martin")
    for change, author in (("proposed", "rennes"), ("accepted", paul)):
        network.clearing.changes.append(
            {
                "version": len(network.clearing.changes) + 1,
                "change": change,
                "agreement": {"limit_out_minutes": 6000, "limit_in_minutes": 3000},
                "changed_by": author,
                "changed_at": "2026-11-01T10:00:00Z",
            }
        )
    page = (await steward.get("/cities/with/rennes")).text
    assert "Proposed: Rennes." in page
    assert "Giving: 100 h; receiving: 50 h." in page
    assert page.index("Accepted: Paul Martin.") < page.index("Proposed: Rennes.")


async def test_what_is_unknown_to_the_city_is_not_there(steward: httpx.AsyncClient) -> None:
    for path in ("/cities/with/rennes", "/cities/with/Not%20a%20city"):
        assert (await steward.get(path)).status_code == 404, path


@pytest.mark.parametrize(
    ("reversal", "words"),
    [
        ({"peer_agreed": False}, "Nothing moves before the stewards of Rennes agree too."),
        ({"peer_agreed": True}, "Both cities agree: Rennes sends the time back."),
        ({"peer_agreed": True, "reversal_id": CROSSED}, "on its way to who gave it"),
        (
            {"peer_agreed": True, "problem": "insufficient_time"},
            "Who received it does not have enough left.",
        ),
        ({"peer_agreed": True, "problem": "moon"}, "Agree again later: that tries again."),
    ],
)
async def test_a_gift_is_taken_back_when_both_cities_agree(
    steward: httpx.AsyncClient,
    network: FakeNetwork,
    submit: Submit,
    reversal: dict[str, Any],
    words: str,
) -> None:
    network.clearing.add_agreement()
    network.clearing.add_received(transfer_id=CROSSED)
    network.clearing.reversal = {"agreed": True, "reversal_id": None, "problem": None, **reversal}
    path = "/cities/with/rennes/transfers"
    back = f"{path}/{CROSSED}/take-back"
    page = await submit(steward, f"{path}?side=received", to=back)
    assert page.status_code == 200
    assert words in page.text
    assert network.clearing.bodies[0][0] == f"/v1/clearing/transfers/{CROSSED}/reversal"
    assert network.clearing.asked[-1] == (
        "/v1/clearing/arrivals",
        {"city_id": "nantes", "peer_city_id": "rennes", "limit": "20"},
    )


async def test_only_what_arrived_can_be_taken_back(
    steward: httpx.AsyncClient, network: FakeNetwork
) -> None:
    for state in ("sent", "returned"):
        network.clearing.add_sent(state=state)
    network.clearing.add_sent(state="settled", reverses=CROSSED)
    assert "take-back" not in (await steward.get("/cities/with/rennes/transfers")).text


@pytest.mark.parametrize("roles", [["auditor"], ["federation_admin"]])
async def test_who_watches_over_all_cities_sees_all_pairs(
    steward: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.clearing.add_position(clearing_minutes=60)
    network.clearing.add_position("nantes", "rennes", clearing_minutes=-60)
    network.clearing.add_position(
        "nantes",
        "lyon",
        clearing_minutes=-2700,
        in_transit_minutes=30,
        in_transit=1,
        overdue=1,
        oldest_sent_at="2026-11-22T08:59:00Z",
        soft=True,
    )
    assert (await steward.get("/cities")).headers["location"] == "/cities/positions"
    page = (await steward.get("/cities/positions")).text
    for text in (
        '<td class="number">+ 1 h</td>',
        '<td class="number">− 1 h</td>',
        "1 pair of cities needs a look",
        "Waiting for 25 hours.",
        "Received, limit: 45 h of 50 h (90%)",
    ):
        assert text in page, text
    assert page.count("close to the limit") == 1
    assert page.index("Lyon with Nantes") < page.index("Nantes with Rennes")
    assert "the two books disagree" not in page
    page = (await steward.get("/cities/positions?city=rennes")).text
    assert "Rennes with Nantes" in page
    assert "Lyon with Nantes" not in page


@pytest.mark.parametrize("roles", [["auditor"]])
@pytest.mark.parametrize(
    ("ours", "theirs", "under_way", "wrong"),
    [
        (60, -60, 0, False),
        (0, -60, 60, False),
        (0, -60, 59, True),
        (60, 0, 60, True),
    ],
)
async def test_books_that_disagree_are_pointed_out(
    steward: httpx.AsyncClient,
    network: FakeNetwork,
    ours: int,
    theirs: int,
    under_way: int,
    wrong: bool,
) -> None:
    network.clearing.add_position(clearing_minutes=ours, in_transit_minutes=under_way)
    network.clearing.add_position("nantes", "rennes", clearing_minutes=theirs)
    page = (await steward.get("/cities/positions")).text
    assert ("the two books disagree" in page) is wrong


@pytest.mark.parametrize("roles", [["federation_admin"]])
async def test_what_is_odd_is_said_with_its_reason_and_who_looked_is_shown(
    steward: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.clearing.add_position()
    page = (await steward.get("/cities/audit?days=90&city=nantes")).text
    for text in (
        "10 h at once, while half of the 60 transfers before it were of 1 h or less.",
        "A rule &lt;newer&gt; than this page.",
        "Nantes with Rennes",
        "26 h",
        "/v1/clearing/positions",
    ):
        assert text in page, text
    asked = {path: params for path, params in network.clearing.asked if "/audit/" in path}
    assert asked["/v1/audit/in-transit"]["city_id"] == "nantes"
    assert asked["/v1/audit/anomalies"]["from"].startswith("2026-08-")
    pair = (await steward.get("/cities/audit/pair?city=nantes&peer=rennes")).text
    assert "− 1 h 30" in pair
    assert '<td class="number">12</td>' in pair
    assert "cursor=1" in pair
    file = await steward.get("/cities/audit/files?table=crossings&format=parquet&city=nantes")
    assert file.content == b"PK"
    assert "copass-crossings-" in file.headers["content-disposition"]
    assert (await steward.get("/cities/audit/files?table=members")).status_code == 404


@pytest.mark.parametrize("roles", [["steward"]])
async def test_a_steward_reads_a_netting_and_agrees_or_refuses(
    steward: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    made = network.clearing.add_netting()
    lost = str(UUID(int=7))
    network.clearing.add_pair(peer_city_id="brest")
    alarm = {"kind": "unknown_here", "ids": [lost], "count": 1}
    network.clearing.add_pair(state="differs", unexplained_minutes=-40, alarms=[alarm])
    page = (await steward.get("/cities/netting")).text
    assert "Brest → Rennes → Nantes → Brest: each owes 1 h less to the next." in page
    assert "Rennes owed 1 h 30 to Nantes, and will owe 30 min." in page
    assert page.index("The books differ") < page.index("The same")
    assert "Explained by nothing: 40 min." in page
    assert "The other city shows what ours never did" in page
    assert lost in page
    path = f"/cities/netting/nantes/{made['netting_id']}"
    assert f'action="{path}/refuse"' in page
    home = "/cities/netting"
    answer = await submit(steward, home, f"{path}/agree", once=str(UUID(int=8)))
    assert answer.headers["location"] == "/cities/netting"
    assert network.clearing.bodies == [(f"/v1/nettings/nantes/{made['netting_id']}/agree", {})]
    assert network.clearing.keys == [str(UUID(int=8))]
    elsewhere = await submit(steward, home, path.replace("nantes", "brest") + "/agree")
    assert elsewhere.status_code == 404
    network.clearing.refuse = "netting_does_not_fit"
    refused = await submit(steward, home, f"{path}/agree")
    assert "A new proposal will follow." in refused.text
    assert len(network.clearing.bodies) == 2
    made["state"] = "agreed"
    assert f'action="{path}/agree"' not in (await steward.get("/cities/netting")).text


@pytest.mark.parametrize("roles", [["steward"]])
async def test_a_steward_audits_their_own_city_only(
    steward: httpx.AsyncClient, network: FakeNetwork
) -> None:
    assert (await steward.get("/cities/audit?city=lyon")).status_code == 200
    asked = [params for path, params in network.clearing.asked if "/audit/" in path]
    assert {params["city_id"] for params in asked} == {"nantes"}
