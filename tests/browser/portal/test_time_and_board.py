"""Hours and exchanges as a thumb, a keyboard or a screen reader meets them."""

import shutil
from typing import Any

import pytest
from playwright.sync_api import expect

if not (shutil.which("chromium") or shutil.which("chromium-browser")):
    pytest.skip("no Chromium here: make browser installs it", allow_module_level=True)

FakeNetwork = Any
OpenPage = Any
SignIn = Any

PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "locale": "fr-FR"}


def test_an_hour_is_logged_with_one_tap_and_no_scrolling(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page(**PHONE)
    sign_in(page)
    page.goto("/time/log")
    button = page.get_by_role("button", name="Noter")
    expect(button).to_be_in_viewport()
    button.tap()
    expect(page.get_by_role("heading", level=1)).to_have_text("1 h, jardin")
    expect(page.get_by_role("status")).to_contain_text("C’est noté.")
    _, body = network.hours.bodies[0]
    assert (body["minutes"], body["beneficiary"]) == (60, {"kind": "commons"})


def test_an_impatient_double_tap_logs_once(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page(locale="fr-FR")
    sign_in(page)
    before = len(network.hours.contributions)
    page.goto("/time/log")
    page.get_by_role("button", name="Noter").dblclick()
    expect(page.get_by_role("heading", level=1)).to_have_text("1 h, jardin")
    assert len(network.hours.contributions) == before + 1


def test_hours_for_a_person_with_the_keyboard_alone(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page()
    sign_in(page)
    page.goto("/time/log")
    press_until_focused(page, "#minutes-60")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("1 h 30")).to_be_checked()
    press_until_focused(page, "#person")
    page.keyboard.type("paul")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("choose the person")
    # The focus waits at the field that asks, and the choices come next.
    expect(page.locator("#person")).to_be_focused()
    expect(page.get_by_role("group", name="Who is it?")).to_be_visible()
    press_until_focused(page, "[name=person_id]")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("1 h 30, garden")
    expect(page.get_by_text("Paul Martin")).to_be_visible()
    _, body = network.hours.bodies[0]
    assert body["minutes"] == 90


def press_until_focused(page: Any, selector: str, presses_max: int = 40) -> None:
    for _ in range(presses_max):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement?.matches(s)", selector):
            return
    raise AssertionError(f"{selector} was not reached by {presses_max} presses of Tab")


def test_the_focus_on_a_choice_that_is_no_native_button_can_be_seen(
    open_page: OpenPage, sign_in: SignIn
) -> None:
    page = open_page()
    sign_in(page)
    page.goto("/time/log")
    press_until_focused(page, "#minutes-60")
    outline = page.evaluate(
        "getComputedStyle(document.querySelector('label[for=minutes-60]')).outlineStyle"
    )
    assert outline == "solid"


def test_what_waits_is_confirmed_in_two_taps_from_home(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page(**PHONE)
    sign_in(page)
    page.goto("/time")
    page.get_by_role("link", name="1 contribution à confirmer").tap()
    page.get_by_role("button", name="Oui, confirmer : Paul Martin, 1 h 30").tap()
    expect(page.get_by_role("status")).to_have_text("Confirmé : Paul Martin, 1 h 30.")
    assert not network.hours.waiting


def test_the_month_is_read_aloud_as_a_sentence_with_its_progress(
    open_page: OpenPage, sign_in: SignIn
) -> None:
    page = open_page()
    sign_in(page)
    page.goto("/time")
    progress = page.get_by_role("progressbar")
    expect(progress).to_have_accessible_name(
        "1 h 30 of 4 h given this month. 2 h 30 left until Monday 30 November."
    )


def test_a_search_is_narrowed_kept_and_cleared(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page(**PHONE)
    sign_in(page)
    page.goto("/board")
    page.get_by_role("searchbox").fill("vélo")
    page.get_by_text("Préciser").click()
    page.get_by_label("De quel genre ?").select_option("lend")
    page.get_by_label("Gratuit seulement").check()
    page.get_by_role("button", name="Appliquer").click()
    assert network.board.asked[-1] == {"q": "vélo", "what": "lend", "free": "true", "limit": "20"}
    expect(page.get_by_role("searchbox")).to_have_value("vélo")
    expect(page.get_by_label("Gratuit seulement")).to_be_checked()
    page.get_by_role("link", name="Tout montrer").click()
    assert network.board.asked[-1] == {"limit": "20"}


def test_a_new_listing_asks_only_what_belongs_to_it(open_page: OpenPage, sign_in: SignIn) -> None:
    page = open_page()
    sign_in(page)
    page.goto("/board/new")
    expect(page.get_by_label("Deposit of a loan")).not_to_be_visible()
    page.get_by_text("Loan", exact=True).click()
    expect(page.get_by_label("Deposit of a loan")).to_be_visible()
    expect(page.get_by_label("Quantity to give")).not_to_be_visible()
    page.get_by_text("Giveaway", exact=True).click()
    expect(page.get_by_label("Quantity to give")).to_be_visible()


def test_two_agree_on_an_exchange(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page()
    sign_in(page)
    page.goto("/time")
    page.get_by_role("link", name="1 request of an exchange to answer").click()
    page.locator("main .rows a").first.click()
    expect(page.get_by_text("Pour deux jours.")).to_be_visible()
    page.get_by_role("button", name="Agree").click()
    expect(page.get_by_text("It is agreed between you and Paul Martin.")).to_be_visible()
    (exchange,) = network.board.exchanges.values()
    assert exchange["status"] == "agreed"


def test_the_statement_and_the_export_are_files(open_page: OpenPage, sign_in: SignIn) -> None:
    page = open_page()
    sign_in(page)
    page.goto("/time/statement")
    for name, ending in (("Download as PDF", "pdf"), ("For a spreadsheet", "csv")):
        with page.expect_download() as file:
            page.get_by_role("button", name=name).click()
        assert file.value.suggested_filename.endswith(f".{ending}")
    page.goto("/me")
    with page.expect_download() as file:
        page.get_by_role("link", name="Download my data").click()
    assert file.value.suggested_filename == "copass-2026-11-23.zip"


def test_erasing_ends_the_session_in_this_browser(
    open_page: OpenPage, network: FakeNetwork, sign_in: SignIn
) -> None:
    page = open_page()
    sign_in(page)
    page.goto("/me/erase")
    page.get_by_label("Your password, once more").fill("correct horse")
    page.get_by_label("Yes, erase my account").check()
    page.get_by_role("button", name="Erase my account").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Account erased")
    assert network.news.erased
    page.goto("/time")
    page.wait_for_url("**/sign-in?next=*")
