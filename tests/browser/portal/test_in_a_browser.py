"""What only a real browser can tell: keyboard, small screens, contrast, policies, the way back."""

import shutil
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

if not (shutil.which("chromium") or shutil.which("chromium-browser")):
    pytest.skip("no Chromium here: make browser installs it", allow_module_level=True)

FakeNetwork = Any
OpenPage = Any
SignIn = Any

PAGES = ("/", "/places", "/sign-in")
# Between them they show every colour of the style sheet; in the dark only colours are looked at.
COLOURED = (
    "/co-pass",
    "/time",
    "/time/log",
    "/time/to-confirm",
    "/time/contributions",
    "/time/disputes",
    "/board?near=Halle",
    "/board/new",
    "/board/exchanges",
    "/time/between",
    "/cities/with/saint-denis",
    "/cities/positions",
    "/notices",
    "/me/erase",
    "/co-pass/guests",
)
# What a thumb must hit, and so is 44 pixels high at least.
TOUCHED = "button, .button, nav a, input:not([type=hidden], [type=radio], [type=checkbox])"
TOUCHED += ", select, textarea, summary, .chips label"

MEMBER_PAGES = (
    "/co-pass",
    "/inside",
    "/time",
    "/time/log",
    "/time/give",
    "/time/statement",
    "/time/to-confirm",
    "/time/contributions",
    "/time/disputes",
    "/time/rings",
    "/time/pledge",
    "/time/solidarity/give",
    "/time/solidarity/ask",
    "/time/solidarity/requests",
    "/board?near=Halle",
    "/board/new",
    "/board/mine",
    "/board/matches",
    "/board/exchanges",
    "/time/between",
    "/cities",
    "/cities/propose",
    "/cities/with/rennes",
    "/cities/with/saint-denis",
    "/cities/with/rennes/transfers",
    "/cities/positions",
    "/notices",
    "/notices/preferences",
    "/me",
    "/me/erase",
    "/co-pass/phone",
    "/co-pass/guests",
    "/pass/",
)


def paths_of(network: FakeNetwork) -> list[str]:
    card = network.cards[0]["card_id"]
    place = network.places[1]["place_id"]
    disputed, waiting = list(network.hours.contributions)[2:4]
    lent, mine = network.board.listings
    (exchange,) = network.board.exchanges
    return [
        *MEMBER_PAGES,
        f"/places/{place}",
        f"/co-pass/{card}/block",
        f"/co-pass/{card}/blocked",
        f"/time/contributions/{disputed}",
        f"/time/contributions/{waiting}",
        f"/board/{lent}",
        f"/board/{mine}",
        f"/board/{mine}/edit",
        f"/board/exchanges/{exchange}",
        f"/time/between/{network.clearing.sent[1]['transfer_id']}",
    ]


def press_until_focused(page: Page, selector: str, presses_max: int = 30) -> None:
    """Tab until the element has the focus, and check that it can be seen to have it."""
    for _ in range(presses_max):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement?.matches(s)", selector):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{selector} does not show its focus"
            return
    raise AssertionError(f"{selector} was not reached by {presses_max} presses of Tab")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("scheme", "language", "rules"),
    [("light", "fr-FR", {}), ("dark", "en-GB", {"runOnly": ["color-contrast"]})],
    ids=["light", "dark"],
)
def test_no_page_has_a_barrier_that_axe_can_find(
    open_page: OpenPage,
    network: FakeNetwork,
    sign_in: SignIn,
    scheme: str,
    language: str,
    rules: dict[str, Any],
) -> None:
    axe = Axe()
    # All that passed, with every element that did, takes longer to tell than to look at.
    options = {"resultTypes": ["violations"], **rules}
    page = open_page(color_scheme=scheme, locale=language)

    def look(path: str) -> None:
        page.goto(path)
        found = axe.run(page, options=options)
        assert found.violations_count == 0, f"{path}\n{found.generate_report()}"

    for path in PAGES:
        look(path)
    sign_in(page)
    for path in paths_of(network):
        if scheme == "light" or path in COLOURED:
            look(path)


def test_a_phone_of_320_pixels_never_scrolls_sideways(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page(viewport={"width": 320, "height": 640}, locale="fr-FR", has_touch=True)

    def look(path: str) -> None:
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
        small = page.evaluate(
            """selector => [...document.querySelectorAll(selector)]
                .filter(e => e.offsetParent && e.getBoundingClientRect().height < 44)
                .map(e => e.outerHTML)""",
            TOUCHED,
        )
        assert not small, path

    for path in PAGES:
        look(path)
    sign_in(page)
    for path in paths_of(network):
        look(path)


def test_a_lost_card_is_blocked_with_the_keyboard_alone(
    open_page: OpenPage, network: FakeNetwork
) -> None:
    page = open_page()
    page.goto("/co-pass")
    page.wait_for_url("**/sign-in?next=*")
    press_until_focused(page, "#email")
    page.keyboard.type("claire@example.org")
    press_until_focused(page, "#password")
    page.keyboard.type("correct horse")
    page.keyboard.press("Enter")
    page.wait_for_url("**/co-pass")
    press_until_focused(page, "a.danger")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Block this card?")
    press_until_focused(page, "input[name=reason]")
    page.keyboard.press("ArrowDown")
    press_until_focused(page, "button.danger")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("this card is blocked")
    assert network.cards[0]["status"] == "blocked"


def test_the_first_press_of_tab_offers_to_skip_the_menu(open_page: OpenPage) -> None:
    page = open_page()
    page.goto("/places")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#q")).to_be_focused()


def test_time_is_given_once_by_an_impatient_double_click(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page()
    sign_in(page)
    page.get_by_role("link", name="My time").click()
    page.get_by_role("link", name="Give time").click()
    page.get_by_label("To whom?").fill("Paul Martin")
    page.get_by_label("How long?").fill("90")
    page.get_by_role("button", name="Give").dblclick()
    expect(page.get_by_role("status")).to_have_text("You gave 1 h 30.")
    page.reload()
    expect(page.get_by_role("status")).to_have_text("You gave 1 h 30.")
    assert len(network.transfers) == 1


def test_a_mistake_is_shown_at_its_field_and_nothing_typed_is_lost(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page()
    sign_in(page)
    page.goto("/time/give")
    page.get_by_text("Give by account number").click()
    page.get_by_label("Account of the person or group").fill("not an account")
    page.get_by_label("How long?").fill("ninety")
    page.get_by_label("What for?").fill("Jardin")
    with page.expect_response(lambda answer: answer.request.method == "POST") as answer:
        page.get_by_role("button", name="Give").click()
    assert answer.value.status == 422
    expect(page.get_by_role("alert")).to_have_text("Nothing was given")
    expect(page.get_by_label("How long?")).to_have_accessible_description(
        "Write a duration: 90, 1h30 or 1:30."
    )
    expect(page.get_by_label("What for?")).to_have_value("Jardin")
    assert not network.transfers


def test_the_language_is_switched_and_kept(open_page: OpenPage) -> None:
    page = open_page(locale="fr-FR")
    page.goto("/places?q=atelier")
    expect(page.get_by_role("heading", level=1)).to_have_text("Lieux")
    page.get_by_role("link", name="English").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Places")
    assert page.url.endswith("/places?q=atelier")
    page.goto("/")
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_signing_out_leaves_nothing_behind_the_back_button(
    open_page: OpenPage, sign_in: SignIn
) -> None:
    page = open_page()
    sign_in(page)
    expect(page.get_by_text("Hello Claire Démo.")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/")
    page.go_back()
    expect(page.get_by_text("Hello Claire Démo.")).not_to_be_visible()
    assert not [cookie for cookie in page.context.cookies() if cookie["name"] == "session"]


def test_a_form_on_another_site_can_do_nothing(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn, address: str
) -> None:
    page = open_page()
    sign_in(page)
    card = network.cards[0]["card_id"]
    # The same machine by another name is another site to the browser.
    page.route(
        "http://localhost:9/**",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f'<form method="post" action="{address}/co-pass/{card}/block"><button>Win',
        ),
    )
    page.goto("http://localhost:9/")
    with page.expect_response(lambda answer: answer.request.method == "POST") as answer:
        page.get_by_role("button").click()
    assert answer.value.status == 403
    assert network.cards[0]["status"] == "active"
