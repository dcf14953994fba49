"""Signing in and out, the co-pass, the time, the people inside."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

EMAIL, PASSWORD = "claire@example.org", "correct horse"
FakeNetwork = Any
OpenPortal = Any
Submit = Any

# The same in every process that collects the tests.
NOBODYS_CARD = "0192a5c0-0000-7000-8000-000000000000"


async def test_a_member_signs_in_and_out(
    visitor: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    answer = await submit(visitor, "/sign-in", email=EMAIL, password=PASSWORD)
    assert (answer.status_code, answer.headers["location"]) == (303, "/co-pass")
    page = await visitor.get("/co-pass")
    assert "Hello Claire Démo." in page.text
    out = await submit(visitor, "/places", to="/sign-out", **form_token(page))
    assert (out.status_code, out.headers["location"]) == (303, "/")
    assert network.revoked == ["refresh-0"]
    assert (await visitor.get("/co-pass")).status_code == 303


def form_token(page: httpx.Response) -> dict[str, str]:
    return {"form_token": page.text.partition('name="form_token" value="')[2].partition('"')[0]}


async def test_identity_hears_the_visitors_own_address(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    assert network.addresses == ["127.0.0.1"]


async def test_a_wrong_password_is_told_without_saying_which_was_wrong(
    visitor: httpx.AsyncClient, submit: Submit
) -> None:
    for email in (EMAIL, "nobody@example.org"):
        page = await submit(visitor, "/sign-in", email=email, password="wrong")
        assert page.status_code == 422
        assert "The address or the password is not right." in page.text
        assert f'value="{email}"' in page.text
        assert 'type="password" autocomplete="current-password" maxlength="1024" required>' in (
            page.text
        )


async def test_a_page_for_members_asks_to_sign_in_and_comes_back(
    visitor: httpx.AsyncClient, submit: Submit
) -> None:
    asked = await visitor.get("/time")
    assert (asked.status_code, asked.headers["location"]) == (303, "/sign-in?next=%2Ftime")
    answer = await submit(
        visitor, asked.headers["location"], to="/sign-in", email=EMAIL, password=PASSWORD
    )
    assert answer.headers["location"] == "/time"


@pytest.mark.parametrize(
    "elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example"]
)
async def test_signing_in_leads_to_no_other_site(
    visitor: httpx.AsyncClient, submit: Submit, elsewhere: str
) -> None:
    answer = await submit(visitor, "/sign-in", email=EMAIL, password=PASSWORD, next=elsewhere)
    assert answer.headers["location"] == "/co-pass"


async def test_the_cookie_tells_nothing_and_cannot_be_changed(member: httpx.AsyncClient) -> None:
    sealed = member.cookies["session"]
    assert "access-0" not in sealed
    assert len(sealed) < 4000
    (cookie,) = [c for c in member.cookies.jar if c.name == "session"]
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "lax"
    middle = len(sealed) // 2
    flipped = "A" if sealed[middle] != "A" else "B"
    member.cookies.set(
        "session", sealed[:middle] + flipped + sealed[middle + 1 :], domain="portal.test"
    )
    assert (await member.get("/co-pass", cookies=None)).status_code == 303


async def test_over_https_cookies_are_bound_to_the_host(
    open_portal: OpenPortal, submit: Submit
) -> None:
    async with open_portal(public_url="https://portal.test") as client:
        answer = await submit(client, "/sign-in", email=EMAIL, password=PASSWORD)
        cookies = answer.headers.get_list("set-cookie")
        session = next(c for c in cookies if c.startswith("__Host-session="))
        assert "Secure" in session
        assert "HttpOnly" in session
        assert "max-age" in answer.headers["strict-transport-security"]


async def test_the_token_is_renewed_once_for_many_pages_at_once(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.now += timedelta(seconds=590)
    stale = dict(member.cookies)
    pages = await asyncio.gather(*(member.get("/co-pass") for _ in range(6)))
    assert [page.status_code for page in pages] == [200] * 6
    assert network.refresh_uses == {"refresh-0": 1}
    # A page that was already on its way with the old cookie.
    member.cookies.clear()
    member.cookies.update(stale)
    assert (await member.get("/co-pass")).status_code == 200
    assert network.refresh_uses == {"refresh-0": 1}


async def test_a_session_that_identity_ended_is_over_here(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.signed_out_everywhere = True
    answer = await member.get("/co-pass")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Fco-pass")
    assert "session" not in member.cookies


async def test_a_session_survives_identity_being_away(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.now += timedelta(seconds=700)
    network.down.add("identity")
    assert (await member.get("/co-pass")).status_code == 503
    assert (await member.get("/places")).status_code == 200
    network.down.clear()
    assert (await member.get("/co-pass")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/sign-in", "/time/give", "/time/log", "/sign-out", f"/co-pass/{NOBODYS_CARD}/block"]
)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {},
    ],
)
async def test_a_post_from_another_site_does_nothing(
    member: httpx.AsyncClient, network: FakeNetwork, path: str, headers: dict[str, str]
) -> None:
    before = len(network.calls)
    answer = await member.post(path, data={"minutes": "5"}, headers=headers)
    assert answer.status_code == 403
    assert "Nothing was done" in answer.text
    assert len(network.calls) == before


async def test_a_form_token_of_somebody_else_is_worth_nothing(
    open_portal: OpenPortal, network: FakeNetwork, submit: Submit
) -> None:
    async with open_portal() as stranger, open_portal() as victim:
        lent = form_token(await stranger.get("/sign-in"))
        await victim.get("/sign-in")
        answer = await victim.post("/sign-in", data={**lent, "email": EMAIL, "password": PASSWORD})
        assert answer.status_code == 403


async def test_json_dressed_as_a_form_is_refused(member: httpx.AsyncClient) -> None:
    answer = await member.post(
        "/time/give", content=b'{"a":1}', headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 403


# --- the co-pass


async def test_cards_are_shown_with_their_state(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    network.add_card("Ancienne", "replaced")
    network.add_card("Perdue", "blocked")
    active = network.add_card("Carte bleue")
    page = (await member.get("/co-pass")).text
    assert page.index("Carte bleue") < page.index("Perdue") < page.index("Ancienne")
    for text in ("Active", "Blocked", "Replaced", "…A1B2", "Issued on Sep 1, 2026"):
        assert text in page
    assert page.count("/block") == 1
    assert f"/co-pass/{active}/block" in page


async def test_a_lost_card_is_blocked_after_a_question(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    card_id = network.add_card()
    asked = await member.get(f"/co-pass/{card_id}/block")
    assert "Block this card?" in asked.text
    assert network.cards[0]["status"] == "active"
    answer = await submit(member, f"/co-pass/{card_id}/block", reason="stolen")
    assert answer.headers["location"] == f"/co-pass/{card_id}/blocked"
    page = await member.get(answer.headers["location"])
    assert "this card is blocked" in page.text
    assert network.cards[0]["status"] == "blocked"
    # Asked again, by the back button: the same key, so identity answers as before.
    assert (await member.get(f"/co-pass/{card_id}/block")).status_code == 303


async def test_the_page_never_says_blocked_of_a_card_that_is_not(
    member: httpx.AsyncClient, network: FakeNetwork
) -> None:
    card_id = network.add_card()
    page = await member.get(f"/co-pass/{card_id}/blocked")
    assert "The card is not blocked" in page.text
    assert "this card is blocked" not in page.text


async def test_somebody_elses_card_does_not_exist(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.add_card()
    other = uuid4()
    for path in (f"/co-pass/{other}/block", f"/co-pass/{other}/blocked", "/co-pass/x/block"):
        assert (await member.get(path)).status_code == 404


async def test_a_block_that_identity_cannot_take_says_so(
    member: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    card_id = network.add_card()
    page = await member.get(f"/co-pass/{card_id}/block")
    network.down.add("identity")
    answer = await member.post(f"/co-pass/{card_id}/block", data={**form_token(page)})
    assert answer.status_code == 503
    assert "Accounts and cards do not answer right now" in answer.text


# --- time


async def test_time_is_told_in_plain_words(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID
) -> None:
    network.postings += [
        {"minutes": -90, "posted_at": "2026-11-20T10:00:00Z", "memo": "Cuisine <b>"},
        {"minutes": 45, "posted_at": "2026-11-19T10:00:00Z", "memo": None},
    ]
    page = (await member.get("/time")).text
    for text in (
        "2 h 15",
        "Given",
        "Received",
        "− 1 h 30",
        "+ 45 min",
        "Cuisine &lt;b&gt;",
        "10 h",
    ):
        assert text in page, text
    assert str(account) in (await member.get("/time/give")).text
    for word in ("debit", "credit", "posting"):
        assert word not in page.lower()


async def test_minutes_are_given(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit
) -> None:
    friend = uuid4()
    answer = await submit(
        member, "/time/give", to_account=f" {str(friend).upper()} ", minutes="1h30", memo="Jardin"
    )
    assert answer.status_code == 303, answer.text
    ((transfer_id, transfer),) = network.transfers.items()
    assert transfer["memo"] == "Jardin"
    assert {p["account_id"]: p["minutes"] for p in transfer["postings"]} == {
        str(account): -90,
        str(friend): 90,
    }
    assert answer.headers["location"] == f"/time/given/{transfer_id}"
    assert "You gave 1 h 30." in (await member.get(answer.headers["location"])).text


@pytest.mark.parametrize(
    "minutes",
    [
        "0",
        "-1",
        "1.5",
        "1e3",
        "1h75",
        "h",
        "1 h 2 h",
        "NaN",
        "",
        " ",
        "٣",
        "1_000",
        "+5",
        "0x10",
        "9" * 17,
        str(2**53),
    ],
)
async def test_what_is_no_number_of_minutes_is_refused_here(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit, minutes: str
) -> None:
    page = await submit(member, "/time/give", to_account=str(uuid4()), minutes=minutes)
    assert page.status_code == 422
    assert "Write a duration" in page.text
    assert 'aria-invalid="true"' in page.text
    assert not network.transfers


@pytest.mark.parametrize("target", ["", "abc", "own"])
async def test_an_account_that_cannot_be_is_refused_here(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit, target: str
) -> None:
    target = str(account) if target == "own" else target
    page = await submit(member, "/time/give", to_account=target, minutes="5", memo="x")
    assert page.status_code == 422
    assert not network.transfers


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("insufficient_time", "You do not have enough time on your account."),
        ("something_new", "The request was refused."),
    ],
)
async def test_a_refusal_is_told_in_plain_words_and_keeps_what_was_typed(
    member: httpx.AsyncClient,
    network: FakeNetwork,
    account: UUID,
    submit: Submit,
    code: str,
    words: str,
) -> None:
    network.refuse_transfer = code
    friend = str(uuid4())
    page = await submit(member, "/time/give", to_account=friend, minutes="9000", memo="Jardin")
    assert page.status_code == 422
    assert words in page.text
    for typed in (friend, "9000", "Jardin"):
        assert f'value="{typed}"' in page.text
    assert network.keys[0] not in page.text


async def test_an_answer_that_was_lost_can_be_sent_again_without_giving_twice(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID, submit: Submit
) -> None:
    network.lose_transfer_answer = True
    page = await submit(member, "/time/give", to_account=str(uuid4()), minutes="30")
    assert page.status_code == 503
    assert "nothing is taken twice" in page.text
    (first_id,) = network.transfers
    assert f'name="transfer_id" value="{first_id}"' in page.text


async def test_without_the_time_bank_the_page_says_so(
    member: httpx.AsyncClient, network: FakeNetwork, account: UUID
) -> None:
    network.down.add("timebank")
    page = await member.get("/time")
    assert page.status_code == 503
    assert "The time bank does not answer right now" in page.text


async def test_a_member_without_an_account_is_told_so(member: httpx.AsyncClient) -> None:
    assert "You have no account" in (await member.get("/time")).text


# --- people inside


async def test_an_operator_sees_numbers(
    visitor: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.me["roles"] = ["member", "operator"]
    full, free = network.add_place("Atelier"), network.add_place("Halle")
    network.add_place("Muet")
    network.presence = {full: {"inside": 38, "capacity": 40}, free: {"inside": 3, "capacity": None}}
    await submit(visitor, "/sign-in", email=EMAIL, password=PASSWORD)
    page = (await visitor.get("/inside")).text
    assert "38 of 40" in page
    assert ">3<" in page
    assert "unknown" in page
    assert 'href="/inside"' in page


async def test_others_do_not(member: httpx.AsyncClient, network: FakeNetwork) -> None:
    network.add_place("Atelier")
    assert (await member.get("/inside")).status_code == 403
    assert 'href="/inside"' not in (await member.get("/places")).text
    assert not [call for call in network.calls if call[0] == "access"]


async def test_counts_that_cannot_be_had_are_unknown_and_not_zero(
    visitor: httpx.AsyncClient, network: FakeNetwork, submit: Submit
) -> None:
    network.me["roles"] = ["steward"]
    network.add_place("Atelier")
    network.down.add("access")
    await submit(visitor, "/sign-in", email=EMAIL, password=PASSWORD)
    page = (await visitor.get("/inside")).text
    assert "unknown" in page
    assert "The count of people inside does not answer right now" in page
