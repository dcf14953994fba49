"""What holds after every step of any history of requests."""

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from timebank.domain import (
    Account,
    Actor,
    Books,
    Leg,
    Posted,
    Rejected,
    Repeated,
    TransferRequest,
    decide_all,
)

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
# Times say nothing about the laws, and a busy machine is slow.
at_any_speed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
FLOORS = {1: -600, 2: -600, 3: 0, 4: None}
CEILINGS = {2: 500, 3: 300}
CITIES = {1: "nantes", 2: "nantes", 3: "nantes", 4: "nantes", 5: "bourges"}
STEWARD = Actor("steward", "nantes", steward=True)


def books() -> Books:
    return Books(
        accounts={
            UUID(int=n): Account(
                id=UUID(int=n),
                city_id=CITIES[n],
                kind="organisation",
                owner_id=UUID(int=n),
                open=True,
                floor_minutes=FLOORS.get(n),
                balance_minutes=0,
                version=0,
                ceiling_minutes=CEILINGS.get(n),
            )
            for n in CITIES
        }
    )


account_ids = st.integers(1, 6).map(lambda n: UUID(int=n))


@st.composite
def legs(draw: st.DrawFn) -> tuple[Leg, ...]:
    """Mostly transfers that add up, some that do not."""
    first = draw(st.lists(st.tuples(account_ids, st.integers(-400, 400)), min_size=1, max_size=4))
    missing = -sum(minutes for _, minutes in first) + draw(st.sampled_from([0, 0, 0, 0, 1]))
    return tuple(Leg(*leg) for leg in [*first, (draw(account_ids), missing)])


@st.composite
def histories(draw: st.DrawFn) -> list[TransferRequest]:
    """Requests with ids and keys drawn from few, so that they often meet again."""
    return [
        TransferRequest(
            transfer_id=UUID(int=draw(st.integers(100, 130))),
            own_id=True,
            key=str(draw(st.integers(0, 30))),
            actor=STEWARD,
            legs=draw(legs()),
        )
        for _ in range(draw(st.integers(1, 25)))
    ]


@at_any_speed
@given(histories())
def test_the_laws_hold_after_every_request(requests: list[TransferRequest]) -> None:
    now_books = books()
    for request in requests:
        before = dict(now_books.accounts)
        (outcome,) = decide_all([request], now_books, NOW)
        # Minutes are conserved.
        assert sum(item.balance_minutes for item in now_books.accounts.values()) == 0
        # The floor is never crossed.
        assert all(
            item.floor_minutes is None or item.balance_minutes >= item.floor_minutes
            for item in now_books.accounts.values()
        )
        # Nor the ceiling.
        assert all(
            item.ceiling_minutes is None or item.balance_minutes <= item.ceiling_minutes
            for item in now_books.accounts.values()
        )
        # What was refused or repeated changes nothing.
        if not isinstance(outcome, Posted):
            assert now_books.accounts == before


@at_any_speed
@given(histories())
def test_replaying_the_postings_gives_the_balances(requests: list[TransferRequest]) -> None:
    end = books()
    outcomes = decide_all(requests, end, NOW)
    replayed = dict.fromkeys(end.accounts, 0)
    counted = dict.fromkeys(end.accounts, 0)
    for outcome in outcomes:
        if not isinstance(outcome, Posted):
            continue
        assert sum(posting.minutes for posting in outcome.transfer.postings) == 0
        for posting in outcome.transfer.postings:
            replayed[posting.account_id] += posting.minutes
            counted[posting.account_id] += 1
            assert posting.balance_minutes == replayed[posting.account_id]
            assert posting.account_version == counted[posting.account_id]
    assert replayed == {item.id: item.balance_minutes for item in end.accounts.values()}
    assert counted == {item.id: item.version for item in end.accounts.values()}


@at_any_speed
@given(histories())
def test_a_batch_decides_as_the_requests_one_by_one_would(
    requests: list[TransferRequest],
) -> None:
    together, alone = books(), books()
    batch = decide_all(requests, together, NOW)
    singly = [decide_all([request], alone, NOW)[0] for request in requests]
    assert list(batch) == singly
    assert together == alone


@at_any_speed
@given(histories())
def test_a_request_sent_again_does_nothing_again(requests: list[TransferRequest]) -> None:
    end = books()
    first = decide_all(requests, end, NOW)
    accounts = dict(end.accounts)
    for request, outcome in zip(requests, first, strict=True):
        if isinstance(outcome, Rejected):
            continue
        (again,) = decide_all([request], end, NOW)
        assert again == Repeated(outcome.transfer)
    assert end.accounts == accounts
