"""The laws of the ledger after every step of any life of transfers, reversals and holds.

Conservation; a balance is the sum of its postings; the floor holds, with what is held; what is
held is the sum of the open holds; what is refused changes nothing; replaying gives the same state.
A hold ends once, and along an account time never runs backwards.

250 lives of up to 40 steps. Planted and caught, one by one: a payee given a minute too much; a
balance that is off by one now and then; a floor that forgets what is held; a release that frees
nothing; a void of what was voided; a refusal that drops an account; the time of the clock instead
of the account's.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from timebank.domain import (
    Account,
    Actor,
    Books,
    Leg,
    Posted,
    Rejected,
    Transfer,
    TransferRequest,
    decide_all,
    take_back,
)
from timebank.holds.domain import Hold, expire_hold, place_hold, post_hold, void_hold

START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
STEWARD = Actor("steward", "nantes", steward=True)
FLOORS = {1: -300, 2: 0, 3: None, 4: -50}
IDS = st.integers(1, 4).map(lambda n: UUID(int=n))
MINUTES = st.integers(-5, 250)
PLACES = st.integers(0, 10**6)


class Ledger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.next_id = 1000
        self.books = Books(
            accounts={
                UUID(int=n): Account(
                    UUID(int=n), "nantes", "organisation", UUID(int=n), True, floor, 0, 0
                )
                for n, floor in FLOORS.items()
            }
        )
        self.transfers: list[Transfer] = []
        self.holds: dict[UUID, Hold] = {}
        self.ended: dict[UUID, Hold] = {}

    def new_id(self) -> UUID:
        self.next_id += 1
        return UUID(int=self.next_id)

    def request(self, legs: tuple[Leg, ...], reverses: UUID | None = None) -> TransferRequest:
        return TransferRequest(self.new_id(), True, None, STEWARD, legs, None, reverses)

    def decide(self, request: TransferRequest) -> None:
        before = dict(self.books.accounts)
        (outcome,) = decide_all([request], self.books, self.now)
        if isinstance(outcome, Posted):
            self.transfers.append(outcome.transfer)
        else:
            assert self.books.accounts == before

    @rule(payer=IDS, payee=IDS, minutes=MINUTES)
    def transfer(self, payer: UUID, payee: UUID, minutes: int) -> None:
        self.decide(self.request((Leg(payer, -minutes), Leg(payee, minutes))))

    @rule(place=PLACES)
    def reverse(self, place: int) -> None:
        if not self.transfers:
            return
        original = self.transfers[place % len(self.transfers)]
        legs = take_back(original, STEWARD)
        if not isinstance(legs, Rejected):
            self.decide(self.request(legs, original.id))

    @rule(payer=IDS, payee=IDS, minutes=MINUTES, hours=st.integers(-1, 5))
    def hold(self, payer: UUID, payee: UUID, minutes: int, hours: int) -> None:
        placed = place_hold(
            self.request((Leg(payer, -minutes), Leg(payee, minutes))),
            self.books.accounts,
            expires_at=self.now + timedelta(hours=hours),
            now=self.now,
        )
        if not isinstance(placed, Rejected):
            self.keep(*placed)

    @rule(place=PLACES, minutes=st.none() | st.integers(1, 250))
    def post(self, place: int, minutes: int | None) -> None:
        hold = self.one(place)
        if hold is None:
            return
        done = post_hold(
            hold, self.books.accounts, STEWARD,
            minutes=minutes, transfer_id=self.new_id(), key="k", now=self.now,
        )  # fmt: skip
        if not isinstance(done, Rejected):
            self.transfers.append(done.posted.transfer)
            self.books.accounts.update({item.id: item for item in done.posted.accounts})
            self.keep(done.hold)

    @rule(place=PLACES)
    def void(self, place: int) -> None:
        hold = self.one(place)
        done = void_hold(hold, self.books.accounts, STEWARD, self.now) if hold else None
        if isinstance(done, tuple):
            self.keep(*done)

    @rule(place=PLACES)
    def expire(self, place: int) -> None:
        hold = self.one(place)
        done = expire_hold(hold, self.books.accounts[hold.from_account], self.now) if hold else None
        if done:
            self.keep(*done)

    @rule(minutes=st.integers(-20, 90))
    def time_passes(self, minutes: int) -> None:
        """Also backwards, as clocks do."""
        self.now += timedelta(minutes=minutes)

    def one(self, place: int) -> Hold | None:
        holds = list(self.holds.values())
        return holds[place % len(holds)] if holds else None

    def keep(self, hold: Hold, payer: Account | None = None) -> None:
        assert hold.id not in self.ended, "a hold ended twice"
        self.holds[hold.id] = hold
        if hold.status != "open":
            self.ended[hold.id] = hold
        if payer is not None:
            self.books.accounts[payer.id] = payer

    @invariant()
    def minutes_are_conserved(self) -> None:
        assert sum(item.balance_minutes for item in self.books.accounts.values()) == 0

    @invariant()
    def floors_hold_with_what_is_held(self) -> None:
        for item in self.books.accounts.values():
            if item.floor_minutes is not None:
                assert item.balance_minutes - item.held_minutes >= item.floor_minutes

    @invariant()
    def what_is_held_is_the_sum_of_open_holds(self) -> None:
        for item in self.books.accounts.values():
            assert item.held_minutes == sum(
                hold.minutes
                for hold in self.holds.values()
                if hold.from_account == item.id and hold.status == "open"
            )

    @invariant()
    def replaying_gives_the_same_state(self) -> None:
        replayed = {
            item.id: replace(item, balance_minutes=0, version=0, posted_at=None)
            for item in self.books.accounts.values()
        }
        for transfer in self.transfers:
            for posting in transfer.postings:
                account = replayed[posting.account_id]
                assert posting.account_version == account.version + 1
                assert posting.balance_minutes == account.balance_minutes + posting.minutes
                assert account.posted_at is None or transfer.posted_at >= account.posted_at
                replayed[account.id] = replace(
                    account,
                    version=posting.account_version,
                    balance_minutes=posting.balance_minutes,
                    posted_at=transfer.posted_at,
                )
        assert replayed == self.books.accounts


TestLedger = Ledger.TestCase
TestLedger.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
