"""What must hold on every page: nothing typed becomes markup, and no service that is away, slow or
talking nonsense makes a page fail."""

from typing import Any

import httpx
import pytest

FakeNetwork = Any
Submit = Any

EMAIL, PASSWORD = "claire@example.org", "correct horse"
MARKUP = "<img src=x onerror=alert(1)>\"'&{{7*7}}"
ME = "0192f000-0000-7000-8000-000000000001"
PAUL = "0192f000-0000-7000-8000-0000000000c1"
PLACE = "0192f000-0000-7000-8000-0000000000b9"
CARD = "0192f000-0000-7000-8000-0000000000c9"
ONE = "0192f000-0000-7000-8000-0000000000d1"
LISTING = "0192f000-0000-7000-8000-0000000000e1"
MINE = "0192f000-0000-7000-8000-0000000000e2"
EXCHANGE = "0192f000-0000-7000-8000-0000000000f1"
CROSSED = "0192f000-0000-7000-8000-0000000000fb"
NOTICE = "0192f000-0000-7000-8000-0000000000fa"

PAGES = (
    "/",
    "/places",
    "/co-pass",
    "/co-pass/phone",
    "/co-pass/guests",
    "/pass/",
    "/inside",
    "/inside/readers",
    f"/inside/{PLACE}",
    "/time",
    "/time/log",
    "/time/give",
    "/time/between",
    "/time/between?side=received",
    f"/time/between/{CROSSED}",
    "/time/statement",
    "/time/to-confirm",
    "/time/contributions",
    "/time/contributions?role=beneficiary",
    f"/time/contributions/{ONE}",
    f"/time/contributions/{ONE}/edit",
    "/time/disputes",
    "/time/rings",
    "/time/pledge",
    "/time/solidarity/give",
    "/time/solidarity/ask",
    "/time/solidarity/requests",
    "/board",
    "/board?q=x&near=Halle",
    "/board/mine",
    "/board/matches",
    "/board/new",
    f"/board/{LISTING}",
    f"/board/{MINE}",
    f"/board/{MINE}/edit",
    "/board/exchanges",
    f"/board/exchanges/{EXCHANGE}",
    "/cities",
    "/cities/propose",
    "/cities/with/rennes",
    "/cities/with/rennes/transfers",
    "/cities/with/rennes/transfers?side=received",
    "/cities/positions",
    "/cities/netting",
    "/cities/audit",
    "/cities/audit/pair?city=nantes&peer=rennes",
    "/notices",
    "/notices/preferences",
    "/me",
    "/me/erase",
)
FORMS = {
    "/time/give": {
        "city": MARKUP,
        "person": MARKUP,
        "minutes": MARKUP,
        "memo": MARKUP,
        "to_account": MARKUP,
    },
    "/time/log": {"own": MARKUP, "person": MARKUP, "note": MARKUP, "performed_on": MARKUP},
    f"/time/contributions/{ONE}/edit": {"own": MARKUP, "note": MARKUP, "activity": MARKUP},
    "/time/pledge": {"minutes": MARKUP, "skills": MARKUP},
    "/time/solidarity/give": {"minutes": MARKUP},
    "/time/solidarity/ask": {"minutes": MARKUP, "reason": MARKUP, "purpose": MARKUP},
    "/board/new": {
        "title": MARKUP,
        "text": MARKUP,
        "where": MARKUP,
        "skills": MARKUP,
        "price": MARKUP,
        "schedule": MARKUP,
        "from_0": MARKUP,
    },
    f"/board/{LISTING}": {"message": MARKUP, "minutes": MARKUP},
    "/cities/propose": {
        "peer": MARKUP,
        "limit_out": MARKUP,
        "limit_in": MARKUP,
        "soft": MARKUP,
        "levy_out": MARKUP,
        "levy_in": MARKUP,
    },
    "/notices/preferences": {"email": MARKUP, "language": MARKUP},
    "/me/erase": {"password": MARKUP},
}


@pytest.fixture
def full(network: FakeNetwork) -> FakeNetwork:
    """Everybody's words, each of them markup."""
    network.me |= {
        "member_id": ME,
        "display_name": MARKUP,
        "roles": ["member", "steward", "operator", "mediator", "auditor"],
    }
    network.add_person(MARKUP, PAUL)
    network.add_place(MARKUP, address=MARKUP, attribution=MARKUP)
    door = {"name": MARKUP, "kind": "public", "opening_hours": None}
    network.add_place(MARKUP, place_id=PLACE, doors=[door])
    network.add_card(MARKUP)
    network.accounts.append(
        {
            "account_id": CARD,
            "kind": "member",
            "balance_minutes": 5,
            "floor_minutes": -600,
            "status": "open",
        }
    )
    network.postings.append({"minutes": 5, "posted_at": "2026-11-20T10:00:00Z", "memo": MARKUP})
    word = {
        "minutes": 60,
        "note": MARKUP,
        "written_by": PAUL,
        "written_at": "2026-11-21T10:00:00Z",
    }
    network.hours.add(
        contribution_id=ONE, giver_id=ME, status="disputed", version=2, note=MARKUP, counter=word
    )
    other = network.hours.add(note=MARKUP, beneficiary={"kind": "member", "id": ME})
    network.hours.waiting = [other["contribution_id"]]
    step = {"giver_id": ME, "confirmer_id": PAUL, "minutes": 60, "percent": 80}
    network.hours.flags.append({"steps": [step], "reason": {"fr": MARKUP, "en": MARKUP}})
    network.clearing.add_agreement(MARKUP)
    network.clearing.add_agreement(state="proposed", proposed_by_us=False, peer_key=MARKUP)
    network.clearing.add_position()
    network.clearing.add_position(MARKUP, MARKUP)
    network.cities.append({"city_id": "rennes", "name": MARKUP})
    network.clearing.add_netting(decider=MARKUP, waiting_for=[MARKUP])
    network.clearing.add_pair(peer_city_id=MARKUP)
    network.clearing.changes += [
        {
            "version": 1,
            "change": "proposed",
            "agreement": {"limit_out_minutes": 60, "limit_in_minutes": 60},
            "changed_by": author,
            "changed_at": "2026-11-01T10:00:00Z",
        }
        for author in (PAUL, MARKUP)
    ]
    network.clearing.add_sent(payee=PAUL, state="settled", memo=MARKUP)
    network.clearing.add_received(payee=PAUL)
    network.clearing.add_sent(
        transfer_id=CROSSED, payee=PAUL, memo=MARKUP, state="returned", reason=MARKUP
    )
    network.clearing.add_received(peer_city_id=MARKUP, reason=MARKUP)
    network.promises.add_pledge()
    network.promises.add_request(reason=MARKUP)
    network.promises.add_request(member_id=ME)
    board = network.board
    board.me = ME
    words = {"title": MARKUP, "text": MARKUP, "schedule": {"text": MARKUP, "slots": []}}
    listing = board.add(listing_id=LISTING, **words)
    mine = board.add(listing_id=MINE, owner_id=ME, what="lend", deposit_minutes=60, **words)
    found = [{"word": MARKUP, "found_in": "title"}]
    board.hits = [{"listing": listing, "distance_m": 5, "reasons": found}]
    why = [{"code": code, "points": 1, "value": MARKUP} for code in ("skill", "words", "same_city")]
    board.matches = [
        {"your_listing_id": MINE, "listing": listing, "points": 3, "reasons": why},
    ]
    board.add_exchange(
        mine,
        exchange_id=EXCHANGE,
        status="claimed",
        message=MARKUP,
        claimed_minutes=30,
        claim_note=MARKUP,
        ruling_note=MARKUP,
    )
    network.news.add("exchange.requested", MARKUP, exchange_id=EXCHANGE)["notice_id"] = NOTICE
    return network


@pytest.fixture
async def signed_in(
    full: FakeNetwork, visitor: httpx.AsyncClient, submit: Submit
) -> httpx.AsyncClient:
    answer = await submit(visitor, "/sign-in", email=EMAIL, password=PASSWORD)
    assert answer.status_code == 303
    return visitor


@pytest.mark.parametrize("path", PAGES)
async def test_nothing_that_people_write_becomes_markup(
    signed_in: httpx.AsyncClient, path: str
) -> None:
    page = await signed_in.get(path)
    assert page.status_code == 200, path
    assert_plain(page.text)


def assert_plain(text: str) -> None:
    assert "<img" not in text.lower()
    assert "onerror=alert(1)>" not in text
    assert "{49}" not in text
    assert "'&{{" not in text  # the quote is escaped wherever it stands


async def test_names_that_are_newer_than_the_portal_fail_no_page(
    signed_in: httpx.AsyncClient, full: FakeNetwork
) -> None:
    new = "quantum_leap"
    for one in full.hours.contributions.values():
        one["activity"] = one["versions"][0]["activity"] = new
    for one in (*full.board.listings.values(), *full.board.exchanges.values()):
        one["category"] = new
    full.board.exchanges[EXCHANGE]["status"] = new
    full.board.hits[0]["reasons"][0]["found_in"] = new
    full.board.matches[0]["reasons"][0]["code"] = new
    full.board.matches[0]["reasons"][1] = {"code": "category", "points": 1, "value": new}
    full.clearing.sent[0]["state"] = full.clearing.received[0]["state"] = new
    compared = [full.clearing.add_pair(alarms=[{"kind": new, "ids": [], "count": 1}])]
    for one in (*full.clearing.agreements, *full.clearing.positions, *full.clearing.nettings):
        one["state"] = new
    compared[0]["state"] = new
    full.clearing.changes[0]["change"] = new
    full.postings[0]["kind"] = full.news.notices[0]["kind"] = new
    for path in PAGES:
        assert (await signed_in.get(path)).status_code == 200, path


@pytest.mark.parametrize("path", FORMS)
async def test_what_is_typed_comes_back_as_it_was_typed_and_no_more(
    signed_in: httpx.AsyncClient, submit: Submit, path: str
) -> None:
    page = await submit(signed_in, path, **FORMS[path])
    assert page.status_code == 422, path
    assert_plain(page.text)


def owner(path: str) -> str:
    """The service without which a page has nothing to show."""
    if path == "/inside/readers":
        return "access"
    if path.startswith(("/places", "/inside")):
        return "places"
    if path.startswith(("/co-pass", "/notices")):
        return "identity"
    if path.startswith(("/time", "/board", "/cities")):
        return "timebank"
    return ""


# For who is not signed in, too: the pass on a phone is shown by the phone alone.
ANYBODYS = ("/", "/places", "/pass/")

# Forms that can be shown, and filled in, whatever is away.
ALWAYS = (
    "/time/log",
    "/time/statement",
    "/time/solidarity/give",
    "/time/solidarity/ask",
    "/cities/propose",
    "/co-pass/phone",
)


@pytest.mark.parametrize("service", ["identity", "timebank", "places", "access"])
async def test_a_service_that_is_away_costs_its_own_pages_and_no_other(
    signed_in: httpx.AsyncClient, full: FakeNetwork, service: str
) -> None:
    full.down.add(service)
    for path in PAGES:
        page = await signed_in.get(path)
        lost = owner(path) == service and path not in (*ALWAYS, "/board/new")
        assert page.status_code == (503 if lost else 200), path
        assert "An error on our side" not in page.text


async def test_no_page_fails_for_answers_that_are_nonsense(
    signed_in: httpx.AsyncClient, full: FakeNetwork
) -> None:
    full.garbage = True
    for path in PAGES:
        page = await signed_in.get(path)
        assert page.status_code in (200, 503), path


@pytest.mark.parametrize("path", FORMS)
async def test_no_form_fails_for_services_that_are_away(
    signed_in: httpx.AsyncClient, full: FakeNetwork, submit: Submit, path: str
) -> None:
    shown = await signed_in.get(path)
    token = shown.text.partition('name="form_token" value="')[2].partition('"')[0]
    full.down |= {"identity", "timebank", "places", "access"}
    good = {
        "form_token": token,
        "minutes": "60",
        "activity": "cooking",
        "performed_on": "2026-11-23",
        "whom": "commons",
        "person": "Paul Martin",
        "purpose": "pledge",
        "peer": "rennes",
        "limit_out": "100h",
        "limit_in": "0",
        "soft": "80",
        "kind": "offer",
        "what": "service",
        "title": "x",
        "category": "other",
        "visibility": "city",
        "email": "each",
        "language": "fr",
        "password": PASSWORD,
        "sure": "yes",
    }
    answer = await signed_in.post(path, data=good)
    assert answer.status_code == 503, path


@pytest.mark.parametrize("path", [path for path in PAGES if path not in ANYBODYS])
async def test_pages_of_members_are_for_members(visitor: httpx.AsyncClient, path: str) -> None:
    answer = await visitor.get(path)
    assert answer.status_code == 303, path
    assert answer.headers["location"].startswith("/sign-in?next=")


@pytest.mark.parametrize(
    "path",
    [
        "/time/log",
        "/time/give",
        "/time/pledge",
        f"/time/contributions/{ONE}/confirm",
        f"/time/contributions/{ONE}/edit",
        f"/time/pledge/{ONE}/end",
        "/time/solidarity/give",
        f"/time/solidarity/requests/{ONE}/grant",
        "/board/new",
        f"/board/{MINE}",
        f"/board/{MINE}/edit",
        f"/board/{MINE}/close",
        f"/board/exchanges/{EXCHANGE}/agree",
        "/cities/propose",
        "/cities/with/rennes/accept",
        "/cities/with/rennes/end",
        f"/cities/netting/nantes/{ONE}/agree",
        f"/cities/with/rennes/transfers/{CROSSED}/take-back",
        "/notices/read-all",
        f"/notices/{NOTICE}",
        "/notices/preferences",
        "/me/visibility",
        "/me/erase",
    ],
)
async def test_no_other_site_can_press_a_button(
    signed_in: httpx.AsyncClient, full: FakeNetwork, path: str
) -> None:
    before = len(full.calls)
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {}):
        answer = await signed_in.post(path, data={"minutes": "5"}, headers=headers)
        assert answer.status_code == 403, path
    assert len(full.calls) == before
