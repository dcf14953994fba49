"""The portal behind a real port, the small services behind it, and a real Chromium in front."""

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from portal.app import create_app

sys.path.insert(0, str(Path(__file__).parents[2] / "integration" / "portal"))

from fake_network import EMAIL, PASSWORD, FakeNetwork, settings_of

START_S = 20


# Not for the whole run: while it is open, its event loop is the thread's, and no other test of the
# same process could run one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium,
            # Chromium's own sandbox refuses to run as root, as containers of CI do.
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        yield opened
        opened.close()


@pytest.fixture
def network() -> FakeNetwork:
    fake = FakeNetwork(
        me={
            "member_id": "0192f000-0000-7000-8000-000000000001",
            "city_id": "nantes",
            "display_name": "Claire Démo",
            "roles": ["member", "operator", "steward", "mediator", "auditor"],
        }
    )
    for name in ("Atelier du Port", "La Fabrique-des-mots-interminablement-composés", "Halle"):
        place_id = fake.add_place(name, is_open=name != "Halle")
        fake.presence[place_id] = {"inside": 12, "capacity": 40}
    fake.add_person("Paul Martin", PAUL)
    fake.add_person("Paula Le Goff")
    fake.add_card("Carte bleue")
    fake.add_card("Ancienne", "blocked")
    fake.accounts.append(
        {
            "account_id": "0192f000-0000-7000-8000-0000000000aa",
            "kind": "member",
            "balance_minutes": 135,
            "floor_minutes": -600,
            "status": "open",
        }
    )
    fake.postings += [
        {"minutes": -90, "posted_at": "2026-11-20T10:00:00Z", "memo": "Cuisine du vendredi"},
        {"minutes": 45, "posted_at": "2026-11-19T10:00:00Z", "memo": None},
    ]
    add_life(fake)
    return fake


ME, PAUL = "0192f000-0000-7000-8000-000000000001", "0192f000-0000-7000-8000-0000000000c1"


def add_life(fake: FakeNetwork) -> None:
    """Something on every page: hours in each state, a pledge, listings, exchanges, notices."""
    word = {
        "minutes": 60,
        "note": "On a fini à 15 h",
        "written_by": PAUL,
        "written_at": "2026-11-21T10:00:00Z",
    }
    fake.hours.add(giver_id=ME, activity="garden")
    fake.hours.add(giver_id=ME, status="confirmed", confirmed_minutes=90)
    # Another's, which a mediator settles; and one that waits for the member's word.
    fake.hours.add(
        giver_id=PAUL, contribution_id=DISPUTED, status="disputed", version=2, counter=word
    )
    waits = fake.hours.add(giver_id=PAUL, beneficiary={"kind": "member", "id": ME}, note="Repas")
    fake.hours.waiting = [waits["contribution_id"]]
    fake.promises.add_pledge()
    fake.promises.add_request(member_id=ME, status="granted", granted_minutes=60)
    fake.promises.add_request(reason="Deux semaines d’arrêt.")
    fake.board.me = ME
    theirs = fake.board.add(what="lend", deposit_minutes=60, text="Freins, vitesses, roues.")
    mine = fake.board.add(owner_id=ME, listing_id=MINE, title="Perceuse", skills=["percage"])
    fake.board.matches = [
        {
            "your_listing_id": MINE,
            "listing": theirs,
            "points": 5,
            "reasons": [{"code": "category", "points": 5, "value": "repair"}],
        }
    ]
    fake.board.add_exchange(mine, exchange_id=EXCHANGE, message="Pour deux jours.")
    add_cities(fake)
    fake.news.add("exchange.requested", "Quelqu’un s’y intéresse.", exchange_id=EXCHANGE)
    fake.news.add("pledge.met", "Votre engagement est tenu.")["read_at"] = "2026-11-22T10:00:00Z"


def add_cities(fake: FakeNetwork) -> None:
    """Agreements, a transfer each way, and six cities with long names in the matrix."""
    clearing = fake.clearing
    clearing.add_agreement(levy_out_permille=25)
    clearing.add_agreement("saint-denis", state="proposed", proposed_by_us=False)
    clearing.changes.append(
        {
            "change": "proposed",
            "agreement": {"limit_out_minutes": 6000, "limit_in_minutes": 3000},
            "changed_by": "saint-denis",
            "changed_at": "2026-11-01T10:00:00Z",
        }
    )
    clearing.add_sent(transfer_id=CROSSED, payee=PAUL, state="returned", reason="payee_closed")
    clearing.add_sent(state="settled")
    clearing.add_received()
    names = ("nantes", "rennes", "aix-en-provence", "clermont-ferrand", "lyon", "saint-denis")
    fake.cities += [{"city_id": name, "name": name.title()} for name in names]
    for city in names:
        for peer in names:
            if peer != city:
                clearing.add_position(
                    peer,
                    city,
                    clearing_minutes=5700 if city < peer else -5700,
                    in_transit_minutes=60,
                    in_transit=1,
                    overdue=1,
                    oldest_sent_at="2026-11-20T10:00:00Z",
                    soft=True,
                )


CROSSED = "0192f000-0000-7000-8000-0000000000fb"
DISPUTED = "0192f000-0000-7000-8000-0000000000d1"
MINE = "0192f000-0000-7000-8000-0000000000e1"
EXCHANGE = "0192f000-0000-7000-8000-0000000000f1"


@pytest.fixture
def address(network: FakeNetwork, unused_port: int) -> Iterator[str]:
    """Where the portal answers."""
    url = f"http://127.0.0.1:{unused_port}"
    app = create_app(
        settings_of(public_url=url),
        transport=httpx.MockTransport(network.answer),
        clock=lambda: network.now,
    )
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=unused_port, log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + START_S
    while not server.started:
        assert time.monotonic() < deadline, "the portal did not start"
        time.sleep(0.02)
    yield url
    server.should_exit = True
    thread.join(START_S)


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[OpenPage]:
    """A page in a browser of its own. At the end, nothing may have been said on its console:
    a broken content security policy, a missing file or a script error is said there."""
    contexts = []
    said: list[str] = []

    def opened(**options: Any) -> Page:
        context = browser.new_context(base_url=address, **{"locale": "en-GB", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        return page

    yield opened
    for context in contexts:
        context.close()
    # A page with a 4xx is said too, and a network that is away: what some tests ask for.
    asked_for = r"status of 4(03|22)|ERR_INTERNET_DISCONNECTED"
    assert not [line for line in said if not re.search(asked_for, line)]


SignIn = Callable[[Page], None]


@pytest.fixture
def sign_in() -> SignIn:
    def signed_in(page: Page) -> None:
        page.goto("/sign-in")
        page.get_by_label("E-mail").or_(page.get_by_label("Adresse")).fill(EMAIL)
        page.locator("#password").fill(PASSWORD)
        page.locator("main button").click()
        page.wait_for_url("**/co-pass")

    return signed_in
