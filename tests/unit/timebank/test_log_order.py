"""The order of a log: that of every account, whatever part of the ledger is read at a time."""

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from uuid import UUID

import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from timebank.log import service as log_service
from timebank.log.domain import Crossing, Line, Waiting, name_account, put_in_order, write_entry

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
ACCOUNTS = [UUID(int=number) for number in range(6)]

pairs = st.lists(st.sampled_from(ACCOUNTS), min_size=2, max_size=4, unique=True)
# The accounts of each transfer, whether time passed before it, and what its id sorts as.
ledgers = st.lists(st.tuples(pairs, st.booleans(), st.integers(0, 2**32)), max_size=40)


def line(account: UUID, version: int, transfer: UUID, minutes: int = 1) -> Line:
    return Line(account, version, transfer, minutes, "member", None, None)


def make(ledger: list[tuple[list[UUID], bool, int]]) -> tuple[list[Waiting], list[Line]]:
    """A ledger in the order in which it was posted."""
    versions: dict[UUID, int] = defaultdict(int)
    waiting, lines, now = [], [], NOW
    for number, (accounts, passed, salt) in enumerate(ledger):
        now += timedelta(seconds=passed)
        transfer = Waiting(UUID(int=salt << 64 | number), "transfer", now, None, len(accounts))
        waiting.append(transfer)
        for account in accounts:
            versions[account] += 1
            lines.append(line(account, versions[account], transfer.id))
    return waiting, lines


@given(ledgers)
def test_each_account_keeps_its_own_order(ledger: list[tuple[list[UUID], bool, int]]) -> None:
    waiting, lines = make(ledger)
    ordered = [transfer.id for transfer in put_in_order(waiting[::-1], lines[::-1])]
    assert sorted(ordered) == sorted(transfer.id for transfer in waiting)
    for account in ACCOUNTS:
        own = [each.transfer_id for each in lines if each.account_id == account]
        assert [each for each in ordered if each in set(own)] == own


@given(ledgers, st.data())
def test_what_misses_a_line_waits_with_all_that_follows(
    ledger: list[tuple[list[UUID], bool, int]], data: st.DataObject
) -> None:
    waiting, lines = make(ledger)
    seen: list[Line] = []
    for account in ACCOUNTS:
        own = [each for each in lines if each.account_id == account]
        seen += own[: data.draw(st.integers(0, len(own)))]
    known = {each.transfer_id for each in seen}
    parts = [transfer for transfer in waiting if transfer.id in known]
    first = put_in_order(parts, seen)
    taken = {transfer.id for transfer in first}
    # What was left follows, and together they are as good an order.
    rest = put_in_order(
        [transfer for transfer in waiting if transfer.id not in taken],
        [each for each in lines if each.transfer_id not in taken],
    )
    ordered = [transfer.id for transfer in (*first, *rest)]
    assert sorted(ordered) == sorted(transfer.id for transfer in waiting)
    for account in ACCOUNTS:
        own_ids = [each.transfer_id for each in lines if each.account_id == account]
        assert [each for each in ordered if each in set(own_ids)] == own_ids


def test_of_two_that_do_not_depend_on_each_other_the_earlier_goes_first() -> None:
    late = Waiting(UUID(int=1), "transfer", NOW + timedelta(seconds=1), None, 1)
    early = Waiting(UUID(int=2), "transfer", NOW, None, 1)
    lines = [line(ACCOUNTS[0], 1, late.id), line(ACCOUNTS[1], 1, early.id)]
    assert put_in_order([late, early], lines) == [early, late]


def test_an_entry_names_nobody_and_is_canonical() -> None:
    payer, payee, on_its_way = ACCOUNTS[:3]
    crossing = Crossing(UUID(int=9), "departure", "bourges", 60)
    transfer = Waiting(UUID(int=7), "departure", NOW, None, 3, crossing)
    lines = [
        Line(payer, 4, transfer.id, -60, "member", None, -600),
        Line(payee, 1, transfer.id, 20, "member", None, -600),
        Line(on_its_way, 2, transfer.id, 40, "in_transit", "bourges", None),
    ]
    names = {account: name_account(account, bytes(32)) for account in (payer, payee, on_its_way)}
    entry = write_entry("nantes", 3, transfer, lines, names)
    told = json.loads(entry)
    assert rfc8785.dumps(told) == entry
    assert not any(str(account) in entry.decode() for account in names)
    assert told["clearing"] == {
        "id": str(crossing.id), "minutes": 60, "peer": "bourges", "step": "departure",
    }  # fmt: skip
    by_name = {each["account"]: each for each in told["lines"]}
    assert by_name[names[payer]] == {"account": names[payer], "minutes": -60, "floor": -600}
    assert by_name[names[payee]] == {"account": names[payee], "minutes": 20}
    assert by_name[names[on_its_way]]["is"] == "in_transit"
    assert by_name[names[on_its_way]]["peer"] == "bourges"


def test_a_name_is_another_with_another_salt() -> None:
    names = {name_account(ACCOUNTS[0], bytes([salt]) * 32) for salt in range(5)}
    assert len(names) == 5


def test_what_is_acknowledged_is_signed_within_ten_seconds() -> None:
    """However unlucky: just after a checkpoint, just after a look."""
    waits_s = log_service.CHECKPOINT_EVERY.total_seconds() + log_service.POLL_S
    assert waits_s + 2 * log_service.PAUSE_S < 10
