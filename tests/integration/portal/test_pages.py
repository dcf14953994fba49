"""What visitors see: the network, the places, both languages, and a service that is away."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

OpenPortal = Any
FakeNetwork = Any


async def test_home_counts_cities_places_and_what_is_open(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.add_place("Atelier", city="nantes")
    network.add_place("Fabrique", city="nantes", is_open=False)
    network.add_place("Halle", city="bourges")
    network.add_place("Ailleurs", status="suspended")
    page = await visitor.get("/")
    assert page.status_code == 200
    for text in ("<b>2</b> cities", "<b>3</b> places", "<b>2</b> open now"):
        assert text in page.text


async def test_home_counts_across_pages_and_only_once_in_a_while(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    for n in range(450):
        network.add_place(f"Lieu {n}", is_open=False)
    assert "<b>450</b> places" in (await visitor.get("/")).text
    asked = len(network.calls)
    await visitor.get("/")
    assert len(network.calls) == asked


async def test_home_is_shown_without_numbers_while_the_register_is_away(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.down.add("places")
    page = await visitor.get("/")
    assert page.status_code == 200
    assert "The register of places does not answer right now" in page.text


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("en-GB,en;q=0.9", "en"),
        ("fr", "fr"),
        ("de,en;q=0.5,fr;q=0.4", "en"),
        ("de", "fr"),
        ("", "fr"),
        ("en;q=nonsense", "fr"),
        ("*" * 5000, "fr"),
    ],
)
async def test_the_browser_chooses_the_language(
    visitor: httpx.AsyncClient, accepted: str, language: str
) -> None:
    page = await visitor.get("/", headers={"accept-language": accepted})
    assert f'<html lang="{language}">' in page.text
    assert page.headers["content-language"] == language
    assert "Accept-Language" in page.headers["vary"]


async def test_the_visitor_may_choose_another_and_stays_on_the_page(
    visitor: httpx.AsyncClient,
) -> None:
    switched = await visitor.get("/language", params={"to": "fr", "next": "/places?city=nantes"})
    assert (switched.status_code, switched.headers["location"]) == (303, "/places?city=nantes")
    assert '<html lang="fr">' in (await visitor.get("/")).text


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\t/x"],
)
async def test_the_language_link_leads_nowhere_else(
    visitor: httpx.AsyncClient, elsewhere: str
) -> None:
    switched = await visitor.get("/language", params={"to": "fr", "next": elsewhere})
    assert switched.headers["location"] == "/"


async def test_places_are_found_by_word_city_and_openness(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.add_place("Atelier du Port", city="nantes")
    network.add_place("Atelier des Prés", city="bourges")
    network.add_place("Halle", city="nantes", is_open=False)
    everything = (await visitor.get("/places")).text
    assert all(name in everything for name in ("Atelier du Port", "Atelier des Prés", "Halle"))
    assert '<option value="bourges">Bourges</option>' in everything
    found = (await visitor.get("/places?q=atelier&city=nantes")).text
    assert "Atelier du Port" in found
    assert "Atelier des Prés" not in found
    open_ones = (await visitor.get("/places?open_now=true")).text
    assert "Halle" not in open_ones
    assert "No place matches" in (await visitor.get("/places?q=nothing")).text


async def test_places_come_in_pages_that_keep_the_search(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    for n in range(60):
        network.add_place(f"Atelier {n:02d}")
    first = (await visitor.get("/places?q=atelier")).text
    assert 'href="/places?q=atelier&amp;cursor=50"' in first
    second = (await visitor.get("/places?q=atelier&cursor=50")).text
    assert "Atelier 59" in second
    assert "Atelier 00" not in second
    assert "Next page" not in second


async def test_a_place_shows_hours_doors_capacity_address_and_source(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    place_id = network.add_place("Atelier du Port")
    page = (await visitor.get(f"/places/{place_id}")).text
    for text in (
        "Open until 18:00",
        "Monday–Friday 09:00–18:00",
        "1 rue de la Paix",
        "44000 Nantes",
        "40 people",
        "Entrée",
        "open to members of the network",
        "France Tiers-Lieux · Licence Ouverte 2.0",
    ):
        assert text in page, text


async def test_a_week_is_shown_on_the_places_own_clock(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    monday = datetime(2026, 11, 23, tzinfo=UTC)

    def span(day: int, start: int, end: int) -> list[int]:
        at = monday + timedelta(days=day)
        return [int((at + timedelta(hours=hour)).timestamp()) for hour in (start, end)]

    place_id = network.add_place(
        "Case", timezone="Indian/Reunion", open=[span(0, 5, 8), span(0, 10, 14), span(2, 16, 22)]
    )
    page = (await visitor.get(f"/places/{place_id}")).text
    assert "Monday 23 November</th><td>09:00–12:00, 14:00–18:00" in page
    assert "Tuesday 24 November</th><td>closed" in page
    assert "Wednesday 25 November</th><td>20:00–02:00" in page
    assert page.count('<th scope="row">') == 7


async def test_hours_that_are_not_plain_are_shown_as_written(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    place_id = network.add_place("Tiers", opening_hours='Mo-Fr "sur rendez-vous"')
    assert "Mo-Fr &#34;sur rendez-vous&#34;" in (await visitor.get(f"/places/{place_id}")).text


async def test_a_place_of_unknown_hours_is_not_called_closed(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    place_id = network.add_place("Mystère", opening_hours=None, is_open=False)
    for path in (f"/places/{place_id}", "/places"):
        page = (await visitor.get(path)).text
        assert "Hours not known" in page
        assert ">Closed<" not in page


async def test_markup_in_a_name_is_shown_and_not_run(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    nasty = """<script>alert(1)</script>"'><img src=x onerror=alert(1)>{{7*7}}"""
    place_id = network.add_place(nasty, address=nasty, attribution=nasty, city="nantes")
    for path in ("/places", f"/places/{place_id}", f"/places?q={httpx.QueryParams({'q': nasty})}"):
        page = (await visitor.get(path)).text
        assert "<script" not in page
        assert "<img" not in page
        assert "{{7*7}}" in page or "7%2A7" in page


@pytest.mark.parametrize(
    "path",
    ["/places/nothing", "/places/0192a5c0-0000-7000-8000-000000000000", "/nowhere", "/static/x"],
)
async def test_what_does_not_exist_has_a_page_that_says_so(
    visitor: httpx.AsyncClient, path: str
) -> None:
    page = await visitor.get(path)
    assert page.status_code == 404
    assert "Page not found" in page.text
    assert "<main" in page.text


@pytest.mark.parametrize("path", ["/places", "/places/0192f000-0000-7000-8000-000000000000"])
async def test_a_register_that_is_away_or_talks_nonsense_is_said_in_plain_words(
    visitor: httpx.AsyncClient, network: FakeNetwork, path: str
) -> None:
    network.down.add("places")
    for _ in range(2):
        page = await visitor.get(path)
        assert page.status_code == 503
        assert "The register of places does not answer right now" in page.text
        network.down.clear()
        network.garbage = True


async def test_every_answer_forbids_inline_code_frames_and_sniffing(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    paths = ("/", "/places", "/nowhere", "/sign-in", "/static/portal.css", "/co-pass", "/livez")
    for path in paths:
        headers = (await visitor.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        if path != "/livez":
            assert headers["x-content-type-options"] == "nosniff"
    page = (await visitor.get("/")).text
    assert " style=" not in page
    assert "<script" not in page
    assert " onclick" not in page


async def test_styles_are_kept_by_the_browser_and_pages_are_not(visitor: httpx.AsyncClient) -> None:
    page = await visitor.get("/")
    assert page.headers["cache-control"] == "no-store"
    address = page.text.partition('rel="stylesheet" href="')[2].partition('"')[0]
    style = await visitor.get(address)
    assert style.status_code == 200
    assert "immutable" in style.headers["cache-control"]


async def test_health_is_told_without_the_services(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.down |= {"identity", "timebank", "access", "places"}
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await visitor.get(path)).status_code == 200


async def test_a_bug_is_a_page_too(
    visitor: httpx.AsyncClient, network: FakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret detail")

    place_id = network.add_place("Atelier")
    monkeypatch.setattr("portal.routes.week_of", broken)
    logged = Mock()
    monkeypatch.setattr("portal.app.log", logged)
    page = await visitor.get(f"/places/{place_id}")
    assert page.status_code == 500
    assert "An error on our side" in page.text
    logged.error.assert_called_once()
    assert "secret" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_a_time_zone_that_does_not_exist_breaks_nothing(
    visitor: httpx.AsyncClient, network: FakeNetwork
) -> None:
    place_id = network.add_place("Atelier", timezone="Nowhere/Nothing")
    assert "Open until 17:00" in (await visitor.get(f"/places/{place_id}")).text
