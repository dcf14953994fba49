"""The pages of passes without a browser: what is sent, what is said, what may run."""

import re
from typing import Any

import httpx

FakeNetwork = Any
Submit = Any

PASSWORD = "correct horse"


async def test_a_pass_on_a_phone(
    network: FakeNetwork, member: httpx.AsyncClient, submit: Submit, visitor: httpx.AsyncClient
) -> None:
    """What makes the key is the browser's (tests/browser); the form carries its public half."""
    old = network.add_card("Vieux téléphone")
    network.cards[0]["type"] = "pass"
    page = "/co-pass/phone"
    shown = await member.get(page)
    assert "Vieux téléphone" in shown.text
    assert "script-src 'self'" in shown.headers["content-security-policy"]
    assert "script-src" not in (await member.get("/co-pass")).headers["content-security-policy"]

    wrong = await submit(member, page, label="Neuf", password="another", public_key="K")
    assert wrong.status_code == 422
    assert "This is not your password" in wrong.text
    assert "another" not in wrong.text
    nameless = await submit(member, page, label="", password=PASSWORD, public_key="K")
    assert (nameless.status_code, network.passes.phones) == (422, [])
    fields = {"label": "Neuf", "password": PASSWORD, "public_key": "K", "replaces": old}
    done = await submit(member, page, **fields)
    (phone,) = network.passes.phones
    assert phone == {
        "card_id": phone["card_id"], "public_key": "K", "label": "Neuf", "replaces": old
    }  # fmt: skip
    assert (done.status_code, done.headers["location"]) == (303, f"/pass/#{phone['card_id']}")
    assert network.passes.keys[-1] == phone["card_id"]

    # The page that shows it says nothing of whoever is signed in: phones put it aside.
    pages = [(await client.get("/pass/")).text for client in (member, visitor)]
    assert pages[0] == pages[1]
    assert "Claire" not in pages[0]
    assert "form_token" not in pages[0]
    worker = await visitor.get("/pass/worker.js")
    assert worker.headers["content-type"].startswith("text/javascript")
    for part in re.findall(r'data-part="([^"]+)"', pages[0]):
        assert (await visitor.get(part)).status_code == 200, part
    assert (await visitor.get("/pass")).headers["location"] == "/pass/"


async def test_guests(network: FakeNetwork, member: httpx.AsyncClient, submit: Submit) -> None:
    page = "/co-pass/guests"
    assert "No place is noted for you" in (await member.get(page)).text
    home, work = network.add_place("Chez Claire"), network.add_place("Atelier")
    visited = network.add_place("Le Dépôt")
    network.me["places"] = {home: "resident", work: "warden", visited: "keyholder"}
    network.passes.add_guest(name="<b>Zoé</b>", places=[home])
    network.passes.add_guest(name="", places=[work], valid_until="2026-11-01T00:00:00Z")
    shown = await member.get(page)
    assert "&lt;b&gt;Zoé" in shown.text
    assert "Le Dépôt" not in shown.text
    assert "Name forgotten" in shown.text
    assert f"{page}?place={work}" in shown.text
    assert f"{page}?place={home}" not in shown.text  # who lives there sees their own guests

    # From a later day, for two days, by the clock of the place; shown once, with its picture.
    fields = {"name": "Ravélo", "place": home, "starts_on": "2026-12-01", "days": "2"}
    paper = await submit(member, page, **fields)
    assert paper.status_code == 200, paper.text
    assert "<svg" in paper.text
    assert "Ravélo" in paper.text
    made = network.passes.guests[0]
    assert made["valid_from"] == "2026-11-30T23:00:00+00:00"
    assert made["valid_until"] == "2026-12-02T23:00:00+00:00"
    # From today: from now, to the end of the day.
    await submit(member, page, **{**fields, "starts_on": "2026-11-23", "days": "1"})
    assert network.passes.guests[0]["valid_until"] == "2026-11-23T23:00:00+00:00"

    for changes in ({"name": ""}, {"place": "x"}, {"days": "15"}, {"starts_on": "soon"}):
        answer = await submit(member, page, **{**fields, **changes})
        assert answer.status_code == 422
        assert 'aria-invalid="true"' in answer.text or "Choose" in answer.text
    network.passes.refuse = "too_many_guests"
    answer = await submit(member, page, **fields)
    assert (answer.status_code, "already have ten guests" in answer.text) == (422, True)
    network.passes.refuse = ""

    answer = await submit(member, page, f"{page}/{made['card_id']}/revoke", place=home)
    assert (answer.status_code, made["status"]) == (303, "revoked")
    assert (await member.get(f"{page}?place={work}")).status_code == 200
    assert (await member.get(f"{page}?place={home}")).status_code == 404
