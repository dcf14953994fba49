"""The pass on a phone in a real browser: its key made and kept there, its code believed."""

import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import segno
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from access.credentials import CredentialReader
from copass_tap.credentials import credential_hash
from copass_tap.decision import Card, Door, Facts, Member, Tap, decide
from copass_tap.passes import PassCode
from copass_tap.signatures import is_own

if not (shutil.which("chromium") or shutil.which("chromium-browser")):
    pytest.skip("no Chromium here: make browser installs it", allow_module_level=True)

FakeNetwork = Any
OpenPage = Any
SignIn = Any

PEPPER = b"p" * 32
SHOWN = """() => {
    const image = document.getElementById("qr");
    const size = image.viewBox.baseVal.width - 8;
    const dark = [...image.querySelector("path").getAttribute("d").matchAll(/M(\\d+) (\\d+)h/g)];
    return {text: image.dataset.code, size, dark: dark.map(at => [+at[1], +at[2]])};
}"""


def put_pass_on(page: Page, password: str = "correct horse") -> None:
    page.goto("/co-pass")
    page.get_by_role("link", name="Put my pass on this phone").click()
    page.get_by_label("Name of this phone").fill("Claire’s phone")
    page.get_by_label("Your password").fill(password)
    page.get_by_role("button", name="Put my pass here").click()


def believed(text: str, phone: dict[str, Any], now: datetime) -> str:
    """What access says of a code at an open door that wants more than a number."""
    credential = CredentialReader(PEPPER).read({"type": "pass", "code": text}, "body", [])
    assert credential is not None
    assert credential.hash == credential_hash(PEPPER, "pass", phone["card_id"])
    at = int(now.timestamp())
    door = Door(
        "door", "place", "nantes", 1, "in_network", None, "off", at + 99, "public", 2, 3000,
        frozenset({"network"}), (at - 99,), (at + 99,), frozenset({"reader"}),
    )  # fmt: skip
    card = Card(phone["card_id"], "member", "active", None, public_key=phone["public_key"])
    member = Member("member", "active", relation=None, standing="good")
    facts = Facts(door, card, member, locked_down=False, people_inside=0, is_inside=False)
    tap = Tap("tap", "door", "pass", credential.hash, "in", now, "live", code=credential.code)
    if not is_own(tap, card):
        facts = replace(facts, card=None, member=None)
    return decide(facts, tap, now).reason


def is_picture_of(text: str, size: int, dark: set[tuple[int, int]]) -> bool:
    """Whether another library draws the same code: in one of the eight masks, of one strength."""
    for error in "LMQH":
        for mask in range(8):
            drawn = segno.make(text, error=error, mask=mask, boost_error=False, micro=False)
            rows = list(drawn.matrix)
            if len(rows) == size and dark == {
                (x, y) for y, row in enumerate(rows) for x, module in enumerate(row) if module & 1
            }:
                return True
    return False


def test_a_pass_is_put_on_a_phone_and_shown_without_a_network(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True)
    sign_in(page)
    put_pass_on(page, "wrong horse")
    expect(page.get_by_role("alert")).to_contain_text("not your password")
    page.goto("/pass/")
    expect(page.get_by_text("There is no pass on this phone.")).to_be_visible()
    put_pass_on(page)
    page.wait_for_url("**/pass/#*")
    expect(page.get_by_role("img")).to_be_visible()
    (phone,) = network.passes.phones
    assert Axe().run(page).violations_count == 0

    # What is shown is a picture of a code that a door believes, now and for no other phone.
    first = page.evaluate(SHOWN)
    now = datetime.now(UTC)
    assert is_picture_of(first["text"], first["size"], {(x, y) for x, y in first["dark"]})
    assert believed(first["text"], phone, now) == "network_member"
    assert believed(first["text"], {**phone, "public_key": "A" * 87}, now) == "unknown_credential"

    # The key can be used, and not taken away.
    taken = page.evaluate(
        """async () => {
            const opened = await new Promise(done => {
                const asked = indexedDB.open("copass");
                asked.onsuccess = () => done(asked.result);
            });
            const kept = await new Promise(done => {
                const asked = opened.transaction("passes").objectStore("passes").get("current");
                asked.onsuccess = () => done(asked.result);
            });
            return crypto.subtle.exportKey("pkcs8", kept.key)
                .then(() => "taken", error => error.name);
        }"""
    )
    assert taken == "InvalidAccessError"

    # Without a network the page is there, and half a minute later the code is another one.
    page.wait_for_function("document.documentElement.dataset.offline === 'ready'")
    page.wait_for_function("navigator.serviceWorker.controller !== null")
    page.context.set_offline(True)
    page.clock.install(time=time.time() + 60)
    page.goto("/pass/")
    expect(page.get_by_text("Claire’s phone")).to_be_visible()
    page.wait_for_function(
        "text => document.getElementById('qr').dataset.code !== text", arg=first["text"]
    )
    later = page.evaluate(SHOWN)["text"]
    assert believed(later, phone, now) == "pass_expired"
    credential = CredentialReader(PEPPER).read({"type": "pass", "code": later}, "body", [])
    assert credential is not None
    assert isinstance(credential.code, PassCode)
    assert credential.code.is_current(int(now.timestamp()) + 60)
    page.context.set_offline(False)

    page.get_by_text("Remove the pass from this phone").click()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("There is no pass on this phone.")).to_be_visible()


def test_a_guests_paper_has_a_page_of_its_own(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    network.me["places"] = {network.places[0]["place_id"]: "resident"}
    page = open_page()
    sign_in(page)
    page.get_by_role("link", name="My guests").click()
    page.get_by_label("Name of the person").fill("Ravélo")
    page.get_by_role("button", name="Make the pass").dblclick()
    expect(page.get_by_role("heading", level=1)).to_have_text("Guest pass")
    assert Axe().run(page).violations_count == 0
    assert len(network.passes.guests) == 1
    page.emulate_media(media="print")
    assert page.locator("article.ticket svg").is_visible()
    assert not page.get_by_text("Print this page").is_visible()
    paper = page.pdf(prefer_css_page_size=True)
    assert paper.count(b"/Type /Page\n") == 1
    assert b"/MediaBox [0 0 298" in paper  # A6, in points
    page.goto("/co-pass/guests")
    page.get_by_role("button", name="Take back the pass of Ravélo").click()
    expect(page.get_by_role("status")).to_have_text("This pass opens nothing any more.")
