"""A book in memory that lives: the machine of tests/unit/timebank/test_law_machine.py."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger_laws import AccountLine, HoldLine, LawBroken, Picture, PostingLine, check, unchanged

from timebank import domain, events
from timebank.domain import (
    Account,
    Actor,
    Books,
    Leg,
    Outcome,
    Posted,
    Rejected,
    Repeated,
    Transfer,
    TransferRequest,
)
from timebank.holds import domain as holds_domain
from timebank.holds.domain import Hold

START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
STEWARD = Actor("steward", "nantes", steward=True)
FLOORS = {1: -300, 2: 0, 3: None, 4: -50}
CEILINGS = {4: 120}

HAPPENS = (
    *("transfer done", "transfer insufficient_time", "transfer ceiling_exceeded"),
    *("transfer account_closed", "transfer wrong_postings", "transfer idempotency_key_reused"),
    *("reverse done", "reverse already_reversed", "reverse insufficient_time"),
    *("hold done", "hold insufficient_time", "post done", "post exceeds_hold"),
    *("void done", "void hold_already_voided", "expire done"),
    *("limits done", "limits limit_passed"),
)

ids = st.integers(1, 4).map(lambda n: UUID(int=n))
pairs = st.sampled_from(
    [(UUID(int=a), UUID(int=b)) for a, b in [*permutations(range(1, 5), 2), (1, 1)]]
)
# Small ones too often otherwise, and those that are none.
minutes = st.sampled_from([*range(1, 160, 6), 0, -1, 2**53])
places = st.integers(0, 10**6)
# Few, so that they meet again.
keys = st.none() | st.integers(0, 9).map(str)
# Mostly the steward, who may do nearly all; an owner; a stranger.
actors = st.sampled_from(
    [STEWARD] * 5 + [Actor(str(UUID(int=1)), "nantes"), Actor("stranger", "bourges")]
)


class Ledger(RuleBasedStateMachine):
    """A book in memory. The rules do what the service does with what the domain decides."""

    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.next_id = 1000
        self.books = Books()
        self.holds: dict[UUID, Hold] = {}
        self.requests: list[tuple[TransferRequest, Transfer]] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.state_versions: dict[UUID, int] = {}
        for n, floor in FLOORS.items():
            owner_id = None if floor is None else UUID(int=n)
            self.keep_account(
                Account(
                    id=UUID(int=n),
                    city_id="nantes",
                    kind="organisation" if owner_id else "commons",
                    owner_id=owner_id,
                    open=True,
                    floor_minutes=floor,
                    balance_minutes=0,
                    version=0,
                    ceiling_minutes=CEILINGS.get(n),
                )
            )

    # ── What happens ────────────────────────────────────────────────────────────────────────────

    @initialize()
    def somebody_has_something(self) -> None:
        """So that a short life meets floors and ceilings too."""
        for n, minutes in ((1, 50), (2, 130), (4, 90)):
            self.decide(self.request(two_legs((UUID(int=3), UUID(int=n)), minutes)))

    @rule(pair=pairs, minutes=minutes, actor=actors, key=keys)
    def transfer(
        self, pair: tuple[UUID, UUID], minutes: int, actor: Actor, key: str | None
    ) -> None:
        self.decide(self.request(two_legs(pair, minutes), actor, key=key))

    @rule(pair=pairs, more=st.sampled_from([0, 1, -1]))
    def give_all(self, pair: tuple[UUID, UUID], more: int) -> None:
        """As much as the floor of who gives, or the ceiling of who receives, seems to allow."""
        payer, payee = (self.books.accounts[account_id] for account_id in pair)
        if payer.floor_minutes is not None:
            minutes = payer.balance_minutes - payer.floor_minutes + more
        elif payee.ceiling_minutes is not None:
            minutes = payee.ceiling_minutes - payee.balance_minutes + more
        else:
            return
        self.decide(self.request(two_legs(pair, minutes)))

    @rule(
        first=st.lists(
            st.tuples(ids, minutes), min_size=2, max_size=3, unique_by=lambda leg: leg[0]
        ),
        last=ids,
        crooked=st.sampled_from([0, 0, 0, 1]),
    )
    def transfer_among_many(self, first: list[tuple[UUID, int]], last: UUID, crooked: int) -> None:
        missing = -sum(minutes for _, minutes in first) + crooked
        self.decide(self.request(tuple(Leg(*leg) for leg in [*first, (last, missing)])))

    @rule(place=places, actor=actors)
    def reverse(self, place: int, actor: Actor) -> None:
        if not self.requests:
            return
        _, original = self.requests[place % len(self.requests)]
        legs = domain.take_back(original, actor)
        if isinstance(legs, Rejected):
            return
        outcome = self.decide(self.request(legs, actor, reverses=original.id))
        if isinstance(outcome, Posted):
            taken = [item for _, item in self.requests if item.reverses == original.id]
            assert len(taken) == 1, "taken back twice"

    @rule(place=places, anew=st.booleans())
    def send_again(self, place: int, anew: bool) -> None:
        """The same request once more, or another one under its key and id."""
        if not self.requests:
            return
        request, transfer = self.requests[place % len(self.requests)]
        before = self.picture()
        if anew:
            request = replace(request, memo="other words")
        (outcome,) = domain.decide_all([request], self.books, self.now)
        if anew:
            assert isinstance(outcome, Rejected)
        else:
            assert outcome == Repeated(transfer), "a request sent again is done again"
        unchanged(before, self.picture())

    @rule(
        pair=pairs, minutes=minutes, ends=st.sampled_from([300, 60, 30, 60, 300, -1]), actor=actors
    )
    def hold(self, pair: tuple[UUID, UUID], minutes: int, ends: int, actor: Actor) -> None:
        request = self.request(two_legs(pair, minutes), actor)
        before = self.picture()
        placed = holds_domain.place_hold(
            request,
            self.books.accounts,
            expires_at=self.now + timedelta(minutes=ends),
            now=self.now,
        )
        self.note("hold", placed)
        if isinstance(placed, Rejected):
            unchanged(before, self.picture())
        else:
            self.keep_hold(*placed)

    @rule(place=places, minutes=st.none() | st.integers(1, 250), actor=actors)
    def post_hold(self, place: int, minutes: int | None, actor: Actor) -> None:
        hold = self.any_hold(place)
        if hold is None:
            return
        before = self.picture()
        done = holds_domain.post_hold(
            hold,
            self.books.accounts,
            actor,
            minutes=minutes,
            transfer_id=self.new_id(),
            key="k",
            now=self.now,
        )
        self.note("post", done)
        if isinstance(done, Rejected):
            unchanged(before, self.picture())
            return
        self.books.accounts.update({item.id: item for item in done.posted.accounts})
        self.books.by_id[done.posted.transfer.id] = done.posted.transfer
        self.told.append((events.TRANSFER_POSTED, events.transfer_posted(done.posted.transfer)))
        self.keep_hold(done.hold)

    @rule(place=places, actor=actors)
    def void_hold(self, place: int, actor: Actor) -> None:
        hold = self.any_hold(place)
        if hold is None:
            return
        before = self.picture()
        done = holds_domain.void_hold(hold, self.books.accounts, actor, self.now)
        self.note("void", done)
        if isinstance(done, Rejected):
            unchanged(before, self.picture())
        else:
            self.keep_hold(*done)

    @rule(
        account_id=ids,
        floor=st.sampled_from([None, 0, -50, -120, -300, -600]),
        ceiling=st.sampled_from([None, None, 0, 60, 120, 300]),
        actor=actors,
    )
    def set_limits(
        self, account_id: UUID, floor: int | None, ceiling: int | None, actor: Actor
    ) -> None:
        before = self.picture()
        changed = domain.set_limits(
            self.books.accounts[account_id], actor, floor_minutes=floor, ceiling_minutes=ceiling
        )
        self.note("limits", changed)
        if isinstance(changed, Rejected):
            unchanged(before, self.picture())
        else:
            self.keep_account(changed)

    @rule(account_id=ids, open_=st.sampled_from([True] * 7 + [False]))
    def close_or_open(self, account_id: UUID, open_: bool) -> None:
        account = self.books.accounts[account_id]
        if account.open != open_:
            self.keep_account(replace(account, open=open_))

    @rule(minutes=st.sampled_from([300, 60, -20, 20]), swept=st.sampled_from([True, True, False]))
    def time_passes(self, minutes: int, swept: bool) -> None:
        """Also backwards, as clocks do; and the worker may come by, or be late."""
        self.now += timedelta(minutes=minutes)
        for hold in list(self.holds.values()) if swept else ():
            payer = self.books.accounts[hold.from_account]
            done = holds_domain.expire_hold(hold, payer, self.now)
            if done:
                self.note("expire", done)
                self.keep_hold(*done)

    # ── What holds ──────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_laws_hold(self) -> None:
        self.seen["steps"] += 1
        check(self.picture())

    # ── The rest ────────────────────────────────────────────────────────────────────────────────

    def picture(self) -> Picture:
        return Picture(
            accounts={item.id: account_line(item) for item in self.books.accounts.values()},
            postings=[
                posting_line(transfer, posting)
                for transfer in self.books.by_id.values()
                for posting in transfer.postings
            ],
            holds={
                item.id: HoldLine(item.from_account, item.minutes, item.status)
                for item in self.holds.values()
            },
            events=list(self.told),
            rest=(
                dict(self.books.accounts),
                dict(self.books.by_key),
                set(self.books.reversed),
                dict(self.holds),
            ),
        )

    def new_id(self) -> UUID:
        self.next_id += 1
        return UUID(int=self.next_id)

    def request(
        self,
        legs: tuple[Leg, ...],
        actor: Actor = STEWARD,
        *,
        key: str | None = None,
        reverses: UUID | None = None,
    ) -> TransferRequest:
        return TransferRequest(self.new_id(), True, key, actor, legs, None, reverses)

    def decide(self, request: TransferRequest) -> Outcome:
        before = self.picture()
        (outcome,) = domain.decide_all([request], self.books, self.now)
        self.note("reverse" if request.reverses else "transfer", outcome)
        if isinstance(outcome, Posted):
            self.requests.append((request, outcome.transfer))
            self.told.append((events.TRANSFER_POSTED, events.transfer_posted(outcome.transfer)))
        else:
            unchanged(before, self.picture())
        return outcome

    def note(self, what: str, outcome: object) -> None:
        self.seen[f"{what} {outcome.code if isinstance(outcome, Rejected) else 'done'}"] += 1

    def any_hold(self, place: int) -> Hold | None:
        """One of the holds: mostly of those that are open, or else of all."""
        holds = [item for item in self.holds.values() if item.status == "open" or place % 3 == 0]
        return holds[place % len(holds)] if holds else None

    def keep_hold(self, hold: Hold, payer: Account | None = None) -> None:
        known = self.holds.get(hold.id)
        if known is not None and known.status != "open":
            raise LawBroken({"holds": "a hold ended twice"})
        self.holds[hold.id] = hold
        self.told.append((events.HOLD_CHANGED, events.hold_changed(hold)))
        if payer is not None:
            self.books.accounts[payer.id] = payer

    def keep_account(self, account: Account) -> None:
        self.books.accounts[account.id] = account
        version = self.state_versions[account.id] = self.state_versions.get(account.id, 0) + 1
        self.told.append((events.ACCOUNT_CHANGED, events.account_changed(account, version)))


def two_legs(pair: tuple[UUID, UUID], minutes: int) -> tuple[Leg, ...]:
    return Leg(pair[0], -minutes), Leg(pair[1], minutes)


def account_line(account: Account) -> AccountLine:
    return AccountLine(
        account.open,
        account.floor_minutes,
        account.ceiling_minutes,
        account.balance_minutes,
        account.held_minutes,
        account.version,
    )


def posting_line(transfer: Transfer, posting: domain.Posting) -> PostingLine:
    return PostingLine(
        transfer.id,
        posting.account_id,
        posting.minutes,
        posting.account_version,
        posting.balance_minutes,
        transfer.posted_at,
    )
