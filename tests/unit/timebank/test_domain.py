"""The ladder of refusals: each rung by its name, in its order."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from timebank.domain import (
    MINUTES_MAX,
    Account,
    AccountKind,
    Actor,
    Books,
    Leg,
    Posted,
    Rejected,
    RejectionCode,
    Repeated,
    TransferRequest,
    decide,
    decide_all,
    post_transfer,
    take_back,
)

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
ANNA, BRUNO, CHLOE = UUID(int=1), UUID(int=2), UUID(int=3)
ANNAS, BRUNOS, CHLOES = UUID(int=11), UUID(int=12), UUID(int=13)
COMMONS, TRANSIT, ABSENT = UUID(int=14), UUID(int=15), UUID(int=99)


def account(
    account_id: UUID,
    owner: UUID | None = None,
    *,
    city: str = "nantes",
    kind: AccountKind = "member",
    floor: int | None = -600,
    balance: int = 0,
) -> Account:
    return Account(
        id=account_id,
        city_id=city,
        kind=kind,
        owner_id=owner,
        open=True,
        floor_minutes=floor,
        balance_minutes=balance,
        version=0,
    )


@pytest.fixture
def accounts() -> dict[UUID, Account]:
    """Two members of Nantes, its commons, one member of Bourges."""
    listed = [
        account(ANNAS, ANNA),
        account(BRUNOS, BRUNO),
        account(CHLOES, CHLOE, city="bourges"),
        account(COMMONS, kind="commons", floor=None),
        account(TRANSIT, kind="in_transit", floor=0),
    ]
    return {item.id: item for item in listed}


anna = Actor(str(ANNA), "nantes")
bruno = Actor(str(BRUNO), "nantes")
chloe = Actor(str(CHLOE), "bourges")
steward = Actor("s", "nantes", steward=True)


def asks(
    payer: UUID = ANNAS,
    payee: UUID = BRUNOS,
    minutes: int = 90,
    *,
    actor: Actor = anna,
    transfer_id: int = 1000,
    own_id: bool = False,
    key: str = "k",
    memo: str | None = None,
) -> TransferRequest:
    return TransferRequest(
        transfer_id=UUID(int=transfer_id),
        own_id=own_id,
        key=key,
        actor=actor,
        legs=(Leg(payer, -minutes), Leg(payee, minutes)),
        memo=memo,
    )


def refusal(outcome: object) -> RejectionCode:
    assert isinstance(outcome, Rejected), outcome
    return outcome.code


def test_minutes_move_from_payer_to_payee(accounts: dict[UUID, Account]) -> None:
    posted = post_transfer(asks(), accounts, NOW)
    assert isinstance(posted, Posted)
    assert {item.id: item.balance_minutes for item in posted.accounts} == {ANNAS: -90, BRUNOS: 90}
    assert {item.version for item in posted.accounts} == {1}
    assert [item.balance_minutes for item in posted.transfer.postings] == [-90, 90]
    assert posted.transfer.posted_at == NOW


def test_a_transfer_may_have_many_postings(accounts: dict[UUID, Account]) -> None:
    legs = (Leg(COMMONS, -100), Leg(ANNAS, 60), Leg(BRUNOS, 40))
    posted = post_transfer(replace(asks(actor=steward), legs=legs), accounts, NOW)
    assert isinstance(posted, Posted)
    assert sum(item.minutes for item in posted.transfer.postings) == 0


@pytest.mark.parametrize(
    "legs",
    [
        (),
        (Leg(ANNAS, 0),),
        (Leg(ANNAS, -5), Leg(BRUNOS, 4)),
        (Leg(ANNAS, 0), Leg(BRUNOS, 0)),
        (Leg(ANNAS, -(MINUTES_MAX + 1)), Leg(BRUNOS, MINUTES_MAX + 1)),
        tuple(Leg(UUID(int=n), 1 if n % 2 else -1) for n in range(102)),
    ],
)
def test_postings_that_are_no_transfer_are_refused(
    accounts: dict[UUID, Account], legs: tuple[Leg, ...]
) -> None:
    assert refusal(post_transfer(replace(asks(), legs=legs), accounts, NOW)) == "wrong_postings"


@pytest.mark.parametrize(
    ("request_", "code", "side"),
    [
        (asks(payee=ANNAS), "same_account", "payee"),
        (asks(payer=ABSENT), "not_found", "payer"),
        (asks(payer=CHLOES), "not_found", "payer"),
        (asks(payer=BRUNOS, payee=ANNAS), "forbidden", "payer"),
        (asks(payer=COMMONS), "forbidden", "payer"),
        (asks(payee=ABSENT), "account_not_found", "payee"),
        (asks(payee=CHLOES), "cross_city_not_available", "payee"),
        (asks(payee=TRANSIT), "account_reserved", "payee"),
        (asks(payer=TRANSIT, actor=steward), "account_reserved", "payer"),
        (asks(minutes=601), "insufficient_time", "payer"),
        (asks(payer=COMMONS, minutes=MINUTES_MAX, actor=steward), None, None),
    ],
)
def test_each_refusal_has_its_name(
    accounts: dict[UUID, Account],
    request_: TransferRequest,
    code: RejectionCode | None,
    side: str | None,
) -> None:
    outcome = post_transfer(request_, accounts, NOW)
    if code is None:
        assert isinstance(outcome, Posted)
    else:
        assert isinstance(outcome, Rejected)
        assert (outcome.code, outcome.side) == (code, side)


def test_the_floor_itself_can_be_reached(accounts: dict[UUID, Account]) -> None:
    assert isinstance(post_transfer(asks(minutes=600), accounts, NOW), Posted)


@pytest.mark.parametrize("closed", [ANNAS, BRUNOS])
def test_a_closed_account_neither_gives_nor_receives(
    accounts: dict[UUID, Account], closed: UUID
) -> None:
    accounts[closed] = replace(accounts[closed], open=False)
    assert refusal(post_transfer(asks(), accounts, NOW)) == "account_closed"


def test_a_balance_stays_within_what_json_can_hold(accounts: dict[UUID, Account]) -> None:
    accounts[BRUNOS] = replace(accounts[BRUNOS], balance_minutes=MINUTES_MAX - 10)
    assert refusal(post_transfer(asks(minutes=11), accounts, NOW)) == "balance_out_of_range"


def test_a_steward_pays_for_others_in_their_own_city_only(accounts: dict[UUID, Account]) -> None:
    assert isinstance(post_transfer(asks(actor=steward), accounts, NOW), Posted)
    stranger = replace(steward, city_id="bourges")
    assert refusal(post_transfer(asks(actor=stranger), accounts, NOW)) == "not_found"


def test_an_auditor_reads_and_does_not_pay(accounts: dict[UUID, Account]) -> None:
    auditor = Actor("a", None, auditor=True)
    assert all(auditor.may_read(item) for item in accounts.values())
    assert refusal(post_transfer(asks(actor=auditor), accounts, NOW)) == "forbidden"


def test_a_resident_reads_their_own_account_and_those_in_common(
    accounts: dict[UUID, Account],
) -> None:
    assert [item.id for item in accounts.values() if anna.may_read(item)] == [ANNAS, COMMONS]


# ── Done before ─────────────────────────────────────────────────────────────────────────────────


def after(accounts: dict[UUID, Account], *requests: TransferRequest) -> Books:
    books = Books(accounts=accounts)
    outcomes = decide_all(requests, books, NOW)
    assert not [item for item in outcomes if isinstance(item, Rejected)]
    return books


def test_the_same_key_and_body_get_the_first_answer(accounts: dict[UUID, Account]) -> None:
    books = after(accounts, asks(transfer_id=1000))
    again = decide(asks(transfer_id=1001), books, NOW)
    assert isinstance(again, Repeated)
    assert again.transfer.id == UUID(int=1000)
    assert books.accounts[ANNAS].balance_minutes == -90


@pytest.mark.parametrize(
    "other",
    [
        asks(minutes=91),
        asks(payee=COMMONS),
        asks(memo="more"),
        asks(transfer_id=5, own_id=True),
        replace(asks(), reverses=UUID(int=7)),
    ],
)
def test_the_same_key_with_another_body_is_refused(
    accounts: dict[UUID, Account], other: TransferRequest
) -> None:
    assert refusal(decide(other, after(accounts, asks()), NOW)) == "idempotency_key_reused"


def test_anothers_key_is_another_key(accounts: dict[UUID, Account]) -> None:
    books = after(accounts, asks())
    other = asks(payer=BRUNOS, payee=ANNAS, actor=bruno, transfer_id=1001)
    assert isinstance(decide(other, books, NOW), Posted)


def test_the_same_transfer_id_and_body_get_the_first_answer(
    accounts: dict[UUID, Account],
) -> None:
    books = after(accounts, asks(own_id=True))
    assert isinstance(decide(asks(own_id=True, key="k2"), books, NOW), Repeated)


def test_the_same_transfer_id_with_another_body_is_refused(
    accounts: dict[UUID, Account],
) -> None:
    books = after(accounts, asks(own_id=True))
    other = asks(own_id=True, key="k2", minutes=5)
    assert refusal(decide(other, books, NOW)) == "transfer_id_reused"


def test_a_repeat_is_answered_even_when_the_time_is_spent(accounts: dict[UUID, Account]) -> None:
    books = after(accounts, asks(minutes=600, own_id=True))
    assert isinstance(decide(asks(minutes=600, own_id=True, key="k2"), books, NOW), Repeated)
    assert isinstance(decide(asks(minutes=600), books, NOW), Repeated)


def test_somebody_elses_transfer_id_tells_a_stranger_nothing(
    accounts: dict[UUID, Account],
) -> None:
    books = after(accounts, asks(own_id=True))
    assert refusal(decide(asks(own_id=True, actor=chloe), books, NOW)) == "not_found"


def test_an_erased_memo_agrees_with_any(accounts: dict[UUID, Account]) -> None:
    books = after(accounts, asks(memo="gone"))
    first = books.by_id[UUID(int=1000)]
    books.by_key[str(ANNA), "k"] = replace(first, memo=None, memo_erased=True)
    assert isinstance(decide(asks(memo="gone"), books, NOW), Repeated)


# ── Taking back ─────────────────────────────────────────────────────────────────────────────────


def reversal(books: Books, *, key: str = "r", transfer_id: int = 2000) -> TransferRequest:
    legs = take_back(books.by_id[UUID(int=1000)], steward)
    assert not isinstance(legs, Rejected)
    return TransferRequest(
        UUID(int=transfer_id), False, key, steward, legs, reverses=UUID(int=1000)
    )


def test_a_transfer_is_taken_back_once(accounts: dict[UUID, Account]) -> None:
    books = after(accounts, asks())
    first, repeat, second = decide_all(
        [
            reversal(books),
            reversal(books, transfer_id=2001),
            reversal(books, key="r2", transfer_id=2002),
        ],
        books,
        NOW,
    )
    assert isinstance(first, Posted)
    assert first.transfer.kind == "reversal"
    assert isinstance(repeat, Repeated)
    assert refusal(second) == "already_reversed"
    assert {item.balance_minutes for item in books.accounts.values()} == {0}


def test_only_a_steward_takes_back_and_no_reversal_is_taken_back(
    accounts: dict[UUID, Account],
) -> None:
    books = after(accounts, asks())
    original = books.by_id[UUID(int=1000)]
    assert refusal(take_back(original, anna)) == "forbidden"
    assert refusal(take_back(original, chloe)) == "not_found"
    decide_all([reversal(books)], books, NOW)
    assert refusal(take_back(books.by_id[UUID(int=2000)], steward)) == "not_reversible"


def test_what_was_spent_since_is_not_taken_back(accounts: dict[UUID, Account]) -> None:
    spent = asks(payer=BRUNOS, payee=COMMONS, minutes=690, actor=bruno, transfer_id=1001)
    books = after(accounts, asks(), spent)
    assert refusal(decide(reversal(books), books, NOW)) == "insufficient_time"
