"""Hours: logged in one tap, confirmed, disputed, ruled; and giving by name."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

FakeNetwork = Any
Submit = Any

EMAIL, PASSWORD = "claire@example.org", "correct horse"


async def sign_in(network: FakeNetwork, client: httpx.AsyncClient, submit: Submit, *roles: str):
    network.me["roles"] = ["member", *roles]
    await submit(client, "/sign-in", email=EMAIL, password=PASSWORD)


def is_radio_checked(page: str, field_id: str) -> bool:
    return " checked" in page.partition(f'id="{field_id}"')[2].partition(">")[0]


async def test_hours_are_logged_with_one_tap(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.hours.add(giver_id=network.me["member_id"], activity="garden", status="confirmed")
    page = (await member.get("/time/log")).text
    assert is_radio_checked(page, "minutes-60")
    assert is_radio_checked(page, "whom-commons")
    assert '<option value="garden" selected>' in page
    assert 'value="2026-11-23" max="2026-11-23"' in page
    answer = await submit(
        member,
        "/time/log",
        minutes="60",
        activity="garden",
        performed_on="2026-11-23",
        whom="commons",
    )
    assert answer.status_code == 303, answer.text
    ((_, body),) = network.hours.bodies
    assert body == {
        "contribution_id": body["contribution_id"],
        "giver_id": network.me["member_id"],
        "beneficiary": {"kind": "commons"},
        "minutes": 60,
        "activity": "garden",
        "performed_on": "2026-11-23",
    }
    assert network.hours.keys == [body["contribution_id"]]
    shown = await member.get(answer.headers["location"])
    assert "It is logged." in shown.text
    assert "1 h, garden" in shown.text


HOURS = {
    "minutes": "60",
    "activity": "cooking",
    "performed_on": "2026-11-20",
    "whom": "commons",
}


async def test_hours_for_a_person_by_their_whole_name(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    paul = network.add_person("Paul Martin")
    network.add_person("Paula Martinet")
    place = network.add_place("Atelier")
    assert '<option value="Paul Martin">' in (await member.get("/time/log")).text
    answer = await submit(
        member,
        "/time/log",
        **{**HOURS, "own": "1h15", "person": "paul  MARTIN", "place_id": place, "note": "Repas"},
    )
    assert answer.status_code == 303, answer.text
    ((_, body),) = network.hours.bodies
    assert body["beneficiary"] == {"kind": "member", "id": paul}
    assert (body["minutes"], body["place_id"], body["note"]) == (75, place, "Repas")


async def test_a_name_that_may_mean_two_is_asked_and_nothing_is_logged(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    paul, paula = network.add_person("Paul Martin"), network.add_person("Paula Martinet")
    asked = await submit(member, "/time/log", **{**HOURS, "person": "paul"})
    assert asked.status_code == 422
    assert "Who is it?" in asked.text
    assert paul in asked.text
    assert not network.hours.bodies
    again = await submit(
        member, "/time/log", **{**HOURS, "person": "paul", "person_id": paula, "whom": "member"}
    )
    assert again.status_code == 303, again.text
    assert network.hours.bodies[0][1]["beneficiary"]["id"] == paula


async def test_who_is_chosen_is_one_of_those_who_were_found(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.add_person("Paul Martin")
    answer = await submit(
        member, "/time/log", **{**HOURS, "person": "paul", "person_id": str(uuid4())}
    )
    assert answer.status_code == 422
    assert not network.hours.bodies


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"own": "ninety"}, "Write a duration"),
        ({"minutes": "7"}, "Write a duration"),
        ({"own": "25h"}, "24 hours at most"),
        ({"performed_on": "2026-11-24"}, "Choose today"),
        ({"performed_on": "2025-11-01"}, "Choose today"),
        ({"performed_on": "soon"}, "Write a date"),
        ({"activity": "espionage"}, ""),
        ({"whom": "member"}, "Write the name"),
        ({"person": "Nobody Here"}, "Nobody of this name"),
        ({"note": "x" * 2001}, "too long"),
    ],
)
async def test_what_cannot_be_logged_is_said_at_its_field_and_nothing_is_lost(
    member: httpx.AsyncClient,
    network: FakeNetwork,
    submit: Submit,
    wrong: dict[str, str],
    words: str,
) -> None:
    page = await submit(member, "/time/log", **{**HOURS, "note": "Kept", **wrong})
    assert page.status_code == 422
    assert words in page.text
    assert "Nothing was saved" in page.text
    assert not network.hours.bodies


async def test_an_answer_that_was_lost_is_sent_again_with_the_same_id(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.hours.lose_answer = True
    page = await submit(member, "/time/log", **HOURS)
    assert page.status_code == 503
    (first,) = network.hours.contributions
    assert f'name="contribution_id" value="{first}"' in page.text


async def test_a_refusal_is_said_in_plain_words_and_the_next_try_is_another(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.hours.refuse = "invalid_day"
    page = await submit(member, "/time/log", **HOURS)
    assert page.status_code == 422
    assert "Choose today, or a day of the last twelve months." in page.text
    assert network.hours.keys[0] not in page.text


async def test_what_waits_is_confirmed_from_the_list(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.add_person("Paul Martin", "0192f000-0000-7000-8000-0000000000c1")
    one = network.hours.add(
        beneficiary={"kind": "member", "id": network.me["member_id"]}, note="<i>Repas</i>"
    )
    network.hours.waiting = [one["contribution_id"]]
    assert "1 contribution to confirm" in (await home(member, network)).text
    page = (await member.get("/time/to-confirm")).text
    assert "Paul Martin, 1 h 30" in page
    assert "&lt;i&gt;Repas&lt;/i&gt;" in page
    link = f"/time/contributions/{one['contribution_id']}"
    answer = await submit(member, "/time/to-confirm", to=f"{link}/confirm")
    assert answer.status_code == 303, answer.text
    ((path, body),) = network.hours.bodies
    assert path.endswith("/confirm")
    assert body == {"version": 1}
    after = (await member.get(answer.headers["location"])).text
    assert "Confirmed: Paul Martin, 1 h 30." in after
    assert "Nothing to confirm." in after


async def home(member: httpx.AsyncClient, network: FakeNetwork) -> httpx.Response:
    if not network.accounts:
        network.accounts.append(
            {"account_id": str(uuid4()), "kind": "member", "balance_minutes": 0, "status": "open"}
        )
    return await member.get("/time")


async def test_the_list_never_says_confirmed_of_what_is_not(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    one = network.hours.add()
    for done in (one["contribution_id"], str(uuid4()), "x"):
        assert "Confirmed:" not in (await member.get(f"/time/to-confirm?done={done}")).text


async def test_what_was_otherwise_is_said_with_minutes_and_words(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    one = network.hours.add(beneficiary={"kind": "member", "id": network.me["member_id"]})
    link = f"/time/contributions/{one['contribution_id']}"
    wrong = await submit(member, link, to=f"{link}/dispute", minutes="long", note="kept")
    assert wrong.status_code == 422
    assert "kept" in wrong.text
    answer = await submit(member, link, to=f"{link}/dispute", minutes="0", note="Rien")
    assert answer.headers["location"] == link
    assert network.hours.bodies == [(f"/v1{link[5:]}/dispute", {"minutes": 0, "note": "Rien"})]


async def test_the_giver_reads_both_versions_and_accepts_the_other(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    one = disputed(network, giver=network.me["member_id"])
    link = f"/time/contributions/{one['contribution_id']}"
    page = (await member.get(link)).text
    assert "2 h" in page
    assert "On a fini &amp; vite" in page
    assert "Accept the other version: 1 h" in page
    answer = await submit(member, link, to=f"{link}/accept", version=str(one["version"]))
    assert answer.status_code == 303
    assert network.hours.contributions[one["contribution_id"]]["confirmed_minutes"] == 60
    assert "Confirmed: you received this time." in (await member.get(link)).text


def disputed(network: FakeNetwork, **given: Any) -> dict[str, Any]:
    giver = given.get("giver", str(uuid4()))
    one: dict[str, Any] = network.hours.add(
        giver_id=giver,
        minutes=120,
        status="disputed",
        version=2,
        counter={
            "minutes": 60,
            "note": "On a fini & vite",
            "written_by": str(uuid4()),
            "written_at": "2026-11-21T10:00:00Z",
        },
    )
    return one


async def test_a_version_that_was_not_read_is_not_agreed_to(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    one = disputed(network, giver=network.me["member_id"])
    link = f"/time/contributions/{one['contribution_id']}"
    answer = await submit(member, link, to=f"{link}/accept", version="1")
    assert answer.status_code == 409
    assert "It changed since you read it." in answer.text
    assert f'href="{link}"' in answer.text


async def test_a_mediator_rules_with_both_versions_side_by_side(
    visitor: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    one = disputed(network)
    await sign_in(network, visitor, submit, "mediator")
    page = (await visitor.get("/time/disputes")).text
    for text in ("2 h", "1 h", "Who gave", "Who received", "Open and settle"):
        assert text in page
    link = f"/time/contributions/{one['contribution_id']}"
    answer = await submit(visitor, link, to=f"{link}/rule", minutes="1h30", note="Entendu")
    assert answer.status_code == 303
    assert network.hours.contributions[one["contribution_id"]]["confirmed_minutes"] == 90


async def test_others_see_no_disputes(member: httpx.AsyncClient, network: FakeNetwork) -> None:
    assert (await member.get("/time/disputes")).status_code == 403
    assert "to settle" not in (await home(member, network)).text


async def test_a_steward_sees_who_confirms_whom_in_turn(
    visitor: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    paul, mia = network.add_person("Paul Martin"), network.add_person("Mia Petit")
    steps = [
        {"giver_id": giver, "confirmer_id": confirmer, "minutes": 90, "percent": 75}
        for giver, confirmer in ((paul, mia), (mia, paul))
    ]
    network.hours.flags.append({"steps": steps, "reason": {"fr": "…", "en": "Worth a look."}})
    await sign_in(network, visitor, submit, "steward")
    page = (await visitor.get("/time/rings")).text
    assert "Mia Petit confirmed 1 h 30 of Paul Martin: 75 % of their confirmed time" in page
    assert "Worth a look." in page
    for path in ("/time/rings", "/time/solidarity/requests", "/time/disputes"):
        assert f'<a href="{path}">' in (await home(visitor, network)).text


async def test_others_do_not_see_it(member: httpx.AsyncClient, network: FakeNetwork) -> None:
    assert (await member.get("/time/rings")).status_code == 403
    assert "For the city" not in (await home(member, network)).text


async def test_what_is_logged_is_changed_or_withdrawn_until_it_is_confirmed(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    one = network.hours.add(giver_id=network.me["member_id"], minutes=75, note="Repas")
    link = f"/time/contributions/{one['contribution_id']}"
    page = (await member.get(f"{link}/edit")).text
    assert 'value="1h15"' in page
    assert "Repas" in page
    answer = await submit(member, f"{link}/edit", **{**HOURS, "own": "2h", "note": ""})
    assert answer.headers["location"] == link
    _, body = network.hours.bodies[0]
    assert (body["minutes"], body["note"], body["place_id"]) == (120, None, None)
    await submit(member, link, to=f"{link}/withdraw")
    assert "You withdrew it" in (await member.get(link)).text
    assert (await member.get(f"{link}/edit")).headers["location"] == link


async def test_the_history_is_that_of_one_side_and_goes_on(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    for _ in range(25):
        network.hours.add(giver_id=network.me["member_id"])
    received = network.hours.add(beneficiary={"kind": "member", "id": network.me["member_id"]})
    first = (await member.get("/time/contributions")).text
    assert first.count('<li><a href="/time/contributions/') == 20
    assert 'href="/time/contributions?role=giver&amp;cursor=20"' in first
    assert received["contribution_id"] not in first
    other = (await member.get("/time/contributions?role=beneficiary")).text
    assert received["contribution_id"] in other


# --- giving by name


async def test_time_is_given_to_a_person_by_name(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit
) -> None:
    paul = network.add_person("Paul Martin")
    answer = await submit(member, "/time/give", person="Paul Martin", minutes="1h30")
    assert answer.status_code == 303, answer.text
    (transfer,) = network.transfers.values()
    assert transfer["postings"][1] == {"account_id": paul, "minutes": 90}


async def test_a_part_of_a_name_is_asked_before_any_time_is_given(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit
) -> None:
    paul = network.add_person("Paul Martin")
    asked = await submit(member, "/time/give", person="paul", minutes="90")
    assert asked.status_code == 422
    assert "Nothing was given yet" in asked.text
    # The only one found is chosen already: one more press says yes.
    assert f'value="{paul}" checked' in asked.text
    assert not network.transfers
    again = await submit(member, "/time/give", person="paul", person_id=paul, minutes="90")
    assert again.status_code == 303


async def test_without_the_directory_time_still_goes_to_an_account_number(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit
) -> None:
    network.down.add("identity")
    answer = await submit(member, "/time/give", to_account=str(uuid4()), minutes="90")
    assert answer.status_code == 303, answer.text
    page = await submit(member, "/time/give", person="Paul Martin", minutes="90")
    assert page.status_code == 503
    assert "Accounts and cards do not answer" in page.text


# --- the statement


async def test_a_statement_is_asked_for_in_days_of_the_city(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID
) -> None:
    page = (await member.get("/time/statement")).text
    assert 'value="2026-01-01"' in page
    answer = await member.get("/time/statement.pdf?start=2026-11-01&end=2026-11-20")
    assert answer.content == b"a statement"
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"] == (
        'attachment; filename="copass-2026-11-01-2026-11-20.pdf"'
    )
    assert network.statements == [
        {"from": "2026-11-01T00:00:00+01:00", "until": "2026-11-21T00:00:00+01:00"}
    ]
    # Up to today is up to now: what is to come cannot be asked for.
    await member.get("/time/statement.csv?start=2026-11-01&end=2026-11-23")
    assert network.statements[1] == {"from": "2026-11-01T00:00:00+01:00"}


@pytest.mark.parametrize(
    "query", ["start=x", "start=2026-12-01", "start=2026-11-10&end=2026-11-09"]
)
async def test_a_period_that_cannot_be_is_said_at_its_field(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, query: str
) -> None:
    page = await member.get(f"/time/statement.csv?{query}")
    assert page.status_code == 422
    assert 'aria-invalid="true"' in page.text
    assert not network.statements
    assert (await member.get("/time/statement.exe")).status_code == 404
