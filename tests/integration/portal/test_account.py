"""Notices, who finds a member, the export of their data, and erasure."""

import io
import zipfile
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

FakeNetwork = Any
Submit = Any


async def test_a_notice_leads_to_what_it_is_about_and_is_read_from_then_on(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    thing = str(uuid4())
    leads = {
        "contribution.to_confirm": ("contribution_id", f"/time/contributions/{thing}"),
        "exchange.requested": ("exchange_id", f"/board/exchanges/{thing}"),
        "listing.match": ("listing_id", f"/board/{thing}"),
        "pledge.met": ("month", "/time/pledge"),
        "solidarity.granted": ("request_id", "/time/solidarity/ask"),
        "something.new": ("thing_id", "/time"),
    }
    for kind, (name, _) in leads.items():
        network.news.add(kind, f"{kind} <b>", **{name: thing})
    page = (await member.get("/notices")).text
    assert "6 unread notices" in page
    assert "pledge.met &lt;b&gt;" in page
    for notice in network.news.notices:
        answer = await submit(member, "/notices", to=f"/notices/{notice['notice_id']}")
        assert answer.headers["location"] == leads[notice["kind"]][1]
        assert notice["read_at"]
    page = (await member.get("/notices")).text
    assert "All is read." in page
    assert f'href="/board/{thing}"' in page


async def test_a_notice_leads_nowhere_else(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    for evil in ("//evil.example", "../../sign-out", "x"):
        notice = network.news.add("listing.match", "?", listing_id=evil)
        answer = await submit(member, "/notices", to=f"/notices/{notice['notice_id']}")
        assert answer.headers["location"] == "/time"


async def test_all_are_read_at_once(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.news.add("pledge.met", "?")
    await submit(member, "/notices", to="/notices/read-all")
    assert network.news.notices[0]["read_at"]


async def test_how_to_be_told_is_chosen_and_the_rest_stays(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.news.preferences["email_available"] = False
    assert "No e-mail is sent for now" in (await member.get("/notices/preferences")).text
    answer = await submit(member, "/notices/preferences", email="each", language="en")
    assert answer.headers["location"] == "/notices/preferences?saved"
    assert "Saved." in (await member.get(answer.headers["location"])).text
    chosen = network.news.preferences
    assert (chosen["email"], chosen["language"], chosen["push"]) == ("each", "en", True)
    wrong = await submit(member, "/notices/preferences", email="hourly", language="en")
    assert wrong.status_code == 422


async def test_a_member_chooses_who_finds_them(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    assert 'value="city" checked' in (await member.get("/me")).text
    await submit(member, "/me", to="/me/visibility", directory="nobody")
    assert network.news.directory == "nobody"
    wrong = await submit(member, "/me", to="/me/visibility", directory="everybody")
    assert wrong.status_code == 422
    assert network.news.directory == "nobody"


async def test_the_export_is_one_file_of_all_services(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    answer = await member.get("/me/export.zip")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="copass-2026-11-23.zip"'
    assert answer.headers["cache-control"] == "no-store"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        assert sorted(file.namelist()) == [
            "access.json",
            "access/taps.csv",
            "identity.json",
            "identity/member.csv",
            "timebank.json",
            "timebank/contributions.csv",
        ]
        kept = orjson.loads(file.read("identity.json"))
        assert kept["tables"]["member"] == [{"display_name": "Claire Démo"}]
        # A note that a spreadsheet would run is a text.
        assert b"'=cmd()" in file.read("timebank/contributions.csv")


@pytest.mark.parametrize("service", ["identity", "timebank", "access"])
async def test_an_export_that_would_lack_a_part_is_none(
    member: httpx.AsyncClient, network: FakeNetwork, service: str
) -> None:
    network.down.add(service)
    answer = await member.get("/me/export.zip")
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("text/html")


async def test_erasing_wants_the_password_and_a_yes(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    page = (await member.get("/me/erase")).text
    assert "What goes, for ever" in page
    assert "What stays" in page
    for fields, words in (
        ({"password": "correct horse"}, "Tick the box"),
        ({"sure": "yes"}, "Write your password."),
        ({"sure": "yes", "password": "hunter-2"}, "This is not your password."),
    ):
        answer = await submit(member, "/me/erase", **fields)
        assert answer.status_code == 422
        assert words in answer.text
        assert not network.news.erased
        assert "hunter-2" not in answer.text
    done = await submit(member, "/me/erase", sure="yes", password="correct horse")
    assert done.status_code == 200
    assert "Account erased" in done.text
    assert network.news.erased
    assert (await member.get("/me")).status_code == 303


async def test_who_cannot_be_erased_yet_is_told_why(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.news.refuse_erasure = "last_steward"
    answer = await submit(member, "/me/erase", sure="yes", password="correct horse")
    assert answer.status_code == 422
    assert "Your city needs a steward" in answer.text
    assert (await member.get("/me")).status_code == 200
