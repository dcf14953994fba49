"""The six laws of the ledger (tests/support/ledger_laws.py) after every step of any life of
transfers, reversals, holds, limits and closed accounts: 10,000 steps, counted.

And the proof that the machine sees: each bug below is planted alone, and must be caught by the law
that it breaks, most often within a thousand steps.

- conservation: who receives gets a minute too much; a third posting is forgotten;
- balance: the balance kept beside the account forgets a minute now and then; two postings get the
  same number; the clock's time is taken, also when it stepped back;
- floor: the floor forgets what is held; a reversal may go below it; a ceiling forgets what was
  there before; limits are set without a look at the balance;
- holds: a release frees nothing; one given in part frees only that part; one that was voided can
  be voided again;
- refusal: a refused reversal marks its transfer as taken back; a refused request uses its key up;
  a refused transfer leaves its mark on who gives;
- replay: a transfer is told without its third posting; the end of a hold is told under the number
  of its beginning; new limits are told as the old ones.

Beyond the laws: nothing is taken back twice, and a request sent again posts nothing again. Planted:
the second reversal is let through; keys are forgotten.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from ledger_laws import LAWS, Law, LawBroken
from ledger_machine import CEILINGS, HAPPENS, Ledger

from timebank import domain, events
from timebank.domain import (
    Account,
    Actor,
    Books,
    Leg,
    Outcome,
    Posted,
    Rejected,
    Transfer,
    TransferRequest,
)
from timebank.holds import domain as holds_domain
from timebank.holds.domain import Hold

STEPS = 10_000
STEPS_A_LIFE = 40


def lives(steps: int, **more: Any) -> settings:
    return settings(
        max_examples=steps // STEPS_A_LIFE,
        stateful_step_count=STEPS_A_LIFE,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def test_the_laws_hold_for_ten_thousand_steps() -> None:
    class Lives(Ledger):
        seen: ClassVar[Counter[str]] = Counter()

    # Some lives are shorter.
    run_state_machine_as_test(Lives, settings=lives(STEPS + STEPS // 4))
    assert Lives.seen["steps"] >= STEPS
    # And in them happened what the laws are about.
    missing = {what for what in HAPPENS if not Lives.seen[what]}
    assert not missing, "\n".join(map(str, sorted(Lives.seen.items())))


# ── Planted bugs ────────────────────────────────────────────────────────────────────────────────

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTS: dict[str, tuple[Law | None, Plant]] = {}


def planted(law: Law | None) -> Callable[[Plant], Plant]:
    """A bug, and the law that it breaks (None: what holds beyond the laws)."""

    def keep(plant: Plant) -> Plant:
        PLANTS[plant.__name__] = law, plant
        return plant

    return keep


@planted("conservation")
def who_receives_gets_a_minute_more(patch: pytest.MonkeyPatch) -> None:
    real = domain.post_leg

    def post_leg(account: Account, leg: Leg) -> domain.Posting:
        return real(account, replace(leg, minutes=leg.minutes + (leg.minutes > 0)))

    patch.setattr(domain, "post_leg", post_leg)


@planted("conservation")
def a_third_posting_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = domain.post_transfer

    def post_transfer(request: TransferRequest, *more: Any) -> Posted | Rejected:
        decided = real(request, *more)
        if isinstance(decided, Rejected):
            return decided
        kept = replace(decided.transfer, postings=decided.transfer.postings[:2])
        return Posted(kept, decided.accounts[:2])

    patch.setattr(domain, "post_transfer", post_transfer)


@planted("balance")
def a_balance_forgets_a_minute(patch: pytest.MonkeyPatch) -> None:
    real = domain.after

    def after(account: Account, posting: domain.Posting, posted_at: datetime) -> Account:
        done = real(account, posting, posted_at)
        # Both ends of a round transfer: what the book sums to is as it should be.
        wrong = posting.minutes % 7 == 0
        sign = 1 if posting.minutes > 0 else -1
        return replace(done, balance_minutes=done.balance_minutes - sign) if wrong else done

    patch.setattr(domain, "after", after)


@planted("balance")
def two_postings_get_the_same_number(patch: pytest.MonkeyPatch) -> None:
    real = domain.after

    def after(account: Account, posting: domain.Posting, posted_at: datetime) -> Account:
        done = real(account, posting, posted_at)
        return replace(done, version=account.version) if account.version == 2 else done

    patch.setattr(domain, "after", after)


@planted("balance")
def the_clock_is_believed_when_it_steps_back(patch: pytest.MonkeyPatch) -> None:
    real = domain.post_transfer

    def post_transfer(
        request: TransferRequest, accounts: dict[UUID, Account], now: datetime
    ) -> Posted | Rejected:
        decided = real(request, accounts, now)
        if isinstance(decided, Rejected):
            return decided
        return Posted(replace(decided.transfer, posted_at=now), decided.accounts)

    patch.setattr(domain, "post_transfer", post_transfer)


@planted("floor")
def the_floor_forgets_what_is_held(patch: pytest.MonkeyPatch) -> None:
    def left_minutes(self: Account) -> int | None:
        floor = self.floor_minutes
        return None if floor is None else self.balance_minutes - floor

    patch.setattr(Account, "left_minutes", property(left_minutes))


@planted("floor")
def a_reversal_may_go_below_the_floor(patch: pytest.MonkeyPatch) -> None:
    real = domain.check_state

    def check_state(request: TransferRequest, accounts: dict[UUID, Account]) -> Rejected | None:
        return None if request.reverses else real(request, accounts)

    patch.setattr(domain, "check_state", check_state)


@planted("floor")
def a_ceiling_forgets_what_was_there(patch: pytest.MonkeyPatch) -> None:
    real = domain.check_state

    def check_state(request: TransferRequest, accounts: dict[UUID, Account]) -> Rejected | None:
        refused = real(request, accounts)
        if refused and refused.code == "ceiling_exceeded":
            most = max(leg.minutes for leg in request.legs)
            if all(most <= (item.ceiling_minutes or most) for item in accounts.values()):
                return None
        return refused

    patch.setattr(domain, "check_state", check_state)


@planted("floor")
def limits_are_set_without_a_look_at_the_balance(patch: pytest.MonkeyPatch) -> None:
    real = domain.set_limits

    def set_limits(account: Account, actor: Actor, **limits: int | None) -> Account | Rejected:
        decided = real(account, actor, **limits)
        if isinstance(decided, Rejected) and decided.code == "limit_passed":
            return replace(account, **limits)
        return decided

    patch.setattr(domain, "set_limits", set_limits)


@planted("holds")
def a_release_frees_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(holds_domain, "release", lambda payer, hold: payer)


@planted("holds")
def one_given_in_part_frees_only_that_part(patch: pytest.MonkeyPatch) -> None:
    real = holds_domain.post_hold

    def post_hold(hold: Hold, *more: Any, **given: Any) -> Any:
        done = real(hold, *more, **given)
        if isinstance(done, Rejected):
            return done
        kept = hold.minutes - (done.hold.posted_minutes or 0)
        accounts = tuple(
            replace(item, held_minutes=item.held_minutes + kept)
            if item.id == hold.from_account
            else item
            for item in done.posted.accounts
        )
        return replace(done, posted=Posted(done.posted.transfer, accounts))

    patch.setattr(holds_domain, "post_hold", post_hold)


@planted("holds")
def one_that_was_voided_can_be_voided_again(patch: pytest.MonkeyPatch) -> None:
    real = holds_domain.check_open

    def check_open(hold: Hold, now: datetime) -> Rejected | None:
        return None if hold.status == "voided" else real(hold, now)

    patch.setattr(holds_domain, "check_open", check_open)


@planted("refusal")
def a_refused_reversal_marks_its_transfer(patch: pytest.MonkeyPatch) -> None:
    real = domain.decide

    def decide(request: TransferRequest, books: Books, now: datetime) -> Outcome:
        outcome = real(request, books, now)
        if request.reverses:
            books.reversed.add(request.reverses)
        return outcome

    patch.setattr(domain, "decide", decide)


@planted("refusal")
def a_refused_request_uses_its_key_up(patch: pytest.MonkeyPatch) -> None:
    real = domain.decide

    def decide(request: TransferRequest, books: Books, now: datetime) -> Outcome:
        outcome = real(request, books, now)
        if isinstance(outcome, Rejected) and request.key and books.by_id:
            first = next(iter(books.by_id.values()))
            books.by_key.setdefault((request.actor.id, request.key), first)
        return outcome

    patch.setattr(domain, "decide", decide)


@planted("refusal")
def a_refused_transfer_leaves_its_mark(patch: pytest.MonkeyPatch) -> None:
    real = domain.decide

    def decide(request: TransferRequest, books: Books, now: datetime) -> Outcome:
        outcome = real(request, books, now)
        if isinstance(outcome, Rejected) and outcome.code == "insufficient_time":
            payer = books.accounts[request.legs[0].account_id]
            books.accounts[payer.id] = replace(payer, posted_at=now)
        return outcome

    patch.setattr(domain, "decide", decide)


@planted("replay")
def a_transfer_is_told_without_its_third_posting(patch: pytest.MonkeyPatch) -> None:
    real = events.transfer_posted

    def transfer_posted(transfer: Transfer) -> dict[str, Any]:
        data = real(transfer)
        return data | {"postings": data["postings"][:2]}

    patch.setattr(events, "transfer_posted", transfer_posted)


@planted("replay")
def the_end_of_a_hold_is_told_under_its_first_number(patch: pytest.MonkeyPatch) -> None:
    real = events.hold_changed
    patch.setattr(events, "hold_changed", lambda hold: real(hold) | {"version": 1})


@planted("replay")
def new_limits_are_told_as_the_old_ones(patch: pytest.MonkeyPatch) -> None:
    real = events.account_changed

    def account_changed(account: Account, version: int) -> dict[str, Any]:
        return real(account, version) | {"ceiling_minutes": CEILINGS.get(account.id.int)}

    patch.setattr(events, "account_changed", account_changed)


@planted(None)
def the_second_reversal_is_let_through(patch: pytest.MonkeyPatch) -> None:
    real = domain.decide

    def decide(request: TransferRequest, books: Books, now: datetime) -> Outcome:
        return real(request, replace(books, reversed=set()), now)

    patch.setattr(domain, "decide", decide)


@planted(None)
def keys_and_ids_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = domain.decide

    def decide(request: TransferRequest, books: Books, now: datetime) -> Outcome:
        return real(request, replace(books, by_key={}, by_id={}), now)

    patch.setattr(domain, "decide", decide)


@pytest.fixture(params=PLANTS)
def plant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Law | None:
    law, plant = PLANTS[request.param]
    plant(monkeypatch)
    return law


def test_a_planted_bug_is_caught(plant: Law | None) -> None:
    # No search for the shortest life. Hypothesis tries the numbers that it finds in the modules
    # that are loaded, so the lives depend on what else runs: the rarest bug is given time.
    quick = lives(3 * STEPS, derandomize=True, database=None, phases=[Phase.generate])
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(Ledger, settings=quick)
    if plant is None:
        assert not isinstance(caught.value, LawBroken)
    else:
        assert isinstance(caught.value, LawBroken)
        assert plant in caught.value.broken


def test_a_bug_is_planted_against_each_law() -> None:
    assert {law for law, _ in PLANTS.values() if law} == set(LAWS)
