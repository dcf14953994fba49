"""Who sees what."""

from typing import Any

import pytest

from common.ids import new_id


async def test_a_statement_is_read_page_by_page_the_newest_first(bank: Any) -> None:
    anna = bank.caller("anna")
    for minutes in range(1, 8):
        await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], minutes, memo=f"no {minutes}")
    path = f"accounts/{bank.accounts['anna']}/postings"
    lines, cursor = [], None
    while True:
        page = (await anna.get(path, limit=3, **({"cursor": cursor} if cursor else {}))).json()
        assert len(page["items"]) <= 3
        lines += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
        # What comes in meanwhile does not move the pages.
        await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 1)
    assert [line["minutes"] for line in lines] == [-7, -6, -5, -4, -3, -2, -1]
    assert [line["balance_minutes"] for line in lines] == [-28, -21, -15, -10, -6, -3, -1]
    assert [line["version"] for line in lines] == [7, 6, 5, 4, 3, 2, 1]
    assert lines[0]["memo"] == "no 7"


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 201}, {"limit": "x"}, {"cursor": -1}, {"cursor": 2**63}]
)
async def test_a_page_that_cannot_be_is_refused(bank: Any, query: dict[str, Any]) -> None:
    answer = await bank.caller("anna").get(f"accounts/{bank.accounts['anna']}/postings", **query)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == f"query.{next(iter(query))}"


CALLERS = {
    "anna": ("anna", "nantes"),
    "bruno": ("bruno", "nantes"),
    "chloe": ("chloe", "bourges"),
    "steward": ("s", "nantes", "steward"),
    "other steward": ("s2", "bourges", "steward"),
    "auditor": ("a", None, "auditor"),
    "federation": ("f", None, "federation_admin"),
    "operator": ("o", "nantes", "operator"),
    "homeless": ("h", None),
}
# Anna's account, her transfer, her standing, the commons and the book of Nantes.
MATRIX = {
    "anna": (200, 200, 200, 200, 403),
    "bruno": (403, 200, 403, 200, 403),
    "chloe": (404, 404, 404, 404, 404),
    "steward": (200, 200, 200, 200, 200),
    "other steward": (404, 404, 404, 404, 404),
    "auditor": (200, 200, 403, 200, 200),
    "federation": (404, 404, 404, 404, 200),
    "operator": (403, 403, 403, 200, 403),
    "homeless": (404, 404, 404, 404, 404),
}


async def test_each_caller_sees_what_is_theirs_to_see(bank: Any, subtests: pytest.Subtests) -> None:
    posted = await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 9)
    for name in MATRIX:
        with subtests.test(name):
            caller = bank.caller(*CALLERS[name])
            paths = (
                f"accounts/{bank.accounts['anna']}",
                f"transfers/{posted.json()['transfer_id']}",
                f"standings/{bank.members['anna']}",
                f"accounts/{bank.accounts['nantes commons']}",
                "books/nantes",
            )
            answers = [await caller.get(path) for path in paths]
            assert tuple(answer.status_code for answer in answers) == MATRIX[name]
            statement = await caller.get(f"accounts/{bank.accounts['anna']}/postings")
            assert statement.status_code == MATRIX[name][0]
            # Hidden is the same as absent, to the letter.
            absent = [
                await caller.get(path)
                for path in (
                    f"accounts/{new_id()}",
                    f"transfers/{new_id()}",
                    f"standings/{new_id()}",
                )
            ]
            for answer, nothing in zip(answers, absent, strict=False):
                assert nothing.status_code == 404
                if answer.status_code == 404:
                    assert answer.json() == nothing.json()


async def test_memos_are_for_those_concerned(bank: Any) -> None:
    posted = await bank.caller("anna").pay(
        bank.accounts["anna"], bank.accounts["nantes commons"], 9, memo="private"
    )
    auditor, bruno = bank.caller("a", None, "auditor"), bank.caller("bruno")
    assert (await auditor.get(f"transfers/{posted.json()['transfer_id']}")).json()["memo"] is None
    for caller, account in (
        (auditor, "anna"),
        (auditor, "nantes commons"),
        (bruno, "nantes commons"),
    ):
        statement = await caller.get(f"accounts/{bank.accounts[account]}/postings")
        assert statement.json()["items"][0]["memo"] is None
    steward = bank.caller("s", "nantes", "steward")
    statement = await steward.get(f"accounts/{bank.accounts['nantes commons']}/postings")
    assert statement.json()["items"][0]["memo"] == "private"


async def test_accounts_are_listed_to_those_who_may_see_them(bank: Any) -> None:
    async def listed(caller: Any, **query: Any) -> Any:
        answer = await caller.get("accounts", **query)
        if answer.status_code != 200:
            return answer.status_code
        return sorted(item["kind"] for item in answer.json()["items"])

    anna_id, chloe_id = bank.members["anna"], bank.members["chloe"]
    anna, steward = bank.caller("anna"), bank.caller("s", "nantes", "steward")
    auditor = bank.caller("a", None, "auditor")
    shared = ["commons", "solidarity_fund"]
    assert await listed(anna, owner_id=anna_id) == ["member"]
    assert await listed(anna, owner_id=bank.members["bruno"]) == 403
    assert await listed(anna, city_id="nantes") == shared
    assert await listed(anna, city_id="nantes", kind="member") == []
    assert await listed(anna, city_id="nantes", kind="commons") == ["commons"]
    assert await listed(anna, city_id="bourges") == 404
    assert await listed(anna, city_id="atlantis") == 404
    assert await listed(anna) == 422
    assert await listed(steward, owner_id=anna_id) == ["member"]
    assert await listed(steward, owner_id=chloe_id) == []
    assert await listed(steward, city_id="nantes") == [*shared[:1], "member", "member", *shared[1:]]
    assert await listed(steward, city_id="bourges") == 404
    assert await listed(auditor, owner_id=chloe_id) == ["member"]
    assert await listed(auditor, city_id="bourges", kind="member") == ["member"]
    page = (await steward.get("accounts", city_id="nantes", limit=3)).json()
    rest = (await steward.get("accounts", city_id="nantes", cursor=page["next"])).json()
    assert len(page["items"]) == 3
    assert len(rest["items"]) == 1
    assert rest["next"] is None


async def test_a_book_sums_to_zero(bank: Any) -> None:
    await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 9)
    book = await bank.caller("s", "nantes", "steward").get("books/nantes")
    assert book.json() == {
        "city_id": "nantes",
        "status": "active",
        "accounts": 4,
        "transfers": 1,
        "sum_minutes": 0,
    }
    federation = bank.caller("f", None, "federation_admin")
    assert (await federation.get("books/atlantis")).status_code == 404
    assert (await federation.get("books/Nan tes")).status_code == 422
