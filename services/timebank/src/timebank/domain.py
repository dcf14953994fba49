"""The rules of the ledger. Pure: no await, no clock, no ids made here.

Load and lock first, decide here, then write. A refusal is a value with a name.
All amounts are integer minutes; in a posting, positive is received and negative is given.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

MINUTES_MAX = 2**53 - 1  # what every JSON reader can hold exactly
LEGS_MAX = 100

AccountKind = Literal[
    "member", "organisation", "commons", "solidarity_fund", "in_transit", "clearing"
]
TransferKind = Literal[
    "transfer",
    "reversal",
    "contribution",
    "pledge",
    "solidarity",
    "rent_credit",
    # Of a transfer between cities, as each book sees it.
    "departure",
    "settlement",
    "return",
    "arrival",
    "netting",
]
Side = Literal["payer", "payee"]

# Moved by clearing between cities alone, never by somebody's request.
CLEARING_KINDS: frozenset[AccountKind] = frozenset({"in_transit", "clearing"})
CLEARING_PURPOSES: frozenset[TransferKind] = frozenset(
    {"departure", "settlement", "return", "arrival", "netting"}
)
# Of the whole city: its residents may see them.
COMMON_KINDS: frozenset[AccountKind] = frozenset({"commons", "solidarity_fund"})
# Taken back where they were made, with all that followed from them: never the transfer alone.
BOUND_KINDS: frozenset[TransferKind] = CLEARING_PURPOSES | {
    "contribution",
    "pledge",
    "solidarity",
    "rent_credit",
}
# Whose stewards may let them fall without end.
FLOORLESS_KINDS: frozenset[AccountKind] = frozenset({"commons"})
# Two hours: enough to notice before the next usual exchange is refused.
WARNING_MARGIN_MINUTES = 120
COMMON_FLOORS: dict[AccountKind, int | None] = {"commons": None, "solidarity_fund": 0}


@dataclass(frozen=True, slots=True)
class Account:
    """An account of a city's book. `version` counts its postings; a None limit is no limit."""

    id: UUID
    city_id: str
    kind: AccountKind
    owner_id: UUID | None
    open: bool
    floor_minutes: int | None
    balance_minutes: int
    version: int
    ceiling_minutes: int | None = None
    # Set aside for others by open holds: not given yet, and not to be given twice.
    held_minutes: int = 0
    # When it was last posted to.
    posted_at: datetime | None = None

    @property
    def left_minutes(self) -> int | None:
        """What can still be given before the floor; None: no floor."""
        if self.floor_minutes is None:
            return None
        return self.balance_minutes - self.held_minutes - self.floor_minutes


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, as far as these rules care. The roles are those held in `city_id`."""

    id: str
    city_id: str | None
    steward: bool = False
    auditor: bool = False
    resident: bool = False
    connector: bool = False
    mediator: bool = False
    animator: bool = False
    operator: bool = False

    def for_the_city(self, city_id: str) -> "Actor":
        """The same person, with the right to move the minutes of a city and of its members.

        For what a rule has already allowed: a confirmed contribution paid from the commons, help
        that a steward granted. Nothing of an HTTP request may reach the ledger with it unchecked.
        """
        return replace(self, city_id=city_id, steward=True)

    def owns(self, account: Account) -> bool:
        return account.owner_id is not None and str(account.owner_id) == self.id

    def is_steward_of(self, city_id: str) -> bool:
        return self.steward and self.city_id == city_id

    def may_read(self, account: Account) -> bool:
        return (
            self.owns(account)
            or self.is_steward_of(account.city_id)
            or self.auditor
            or (account.kind in COMMON_KINDS and self.city_id == account.city_id)
        )

    def may_pay_from(self, account: Account) -> bool:
        return self.is_steward_of(account.city_id) or self.owns(account)

    def may_know_of(self, city_id: str) -> bool:
        """Whether "forbidden" is an answer; for others the thing does not exist."""
        return self.auditor or self.city_id == city_id


@dataclass(frozen=True, slots=True)
class Leg:
    """What one account is to receive (positive) or give (negative)."""

    account_id: UUID
    minutes: int


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """Asks for a transfer. `transfer_id` is made by the client, or for it (then `own_id` is false).

    `reverses` names the transfer that this one takes back.
    """

    transfer_id: UUID
    own_id: bool
    # None: nothing but the id tells a repeat.
    key: str | None
    actor: Actor
    legs: tuple[Leg, ...]
    memo: str | None = None
    reverses: UUID | None = None
    # When it happened elsewhere, of what is imported.
    occurred_at: datetime | None = None
    # What it is for; a request that names what it takes back is a reversal.
    purpose: TransferKind = "transfer"

    @property
    def kind(self) -> TransferKind:
        return self.purpose if self.reverses is None else "reversal"


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of an account: its number there, the minutes, the balance after it.

    `left_minutes`: what its giver can still give, when that is little; else None.
    """

    account_id: UUID
    minutes: int
    account_version: int
    balance_minutes: int
    left_minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """What was posted, and stays."""

    id: UUID
    city_id: str
    kind: TransferKind
    reverses: UUID | None
    requested_by: str
    posted_at: datetime
    memo: str | None
    postings: tuple[Posting, ...]
    memo_erased: bool = False
    occurred_at: datetime | None = None


RejectionCode = Literal[
    "not_found",
    "forbidden",
    "account_not_found",
    "wrong_postings",
    "same_account",
    "account_reserved",
    "cross_city_not_available",
    "account_closed",
    "insufficient_time",
    "ceiling_exceeded",
    "balance_out_of_range",
    "limit_passed",
    "floor_required",
    "account_exists",
    "invalid_expiry",
    "hold_id_reused",
    "exceeds_hold",
    "hold_already_posted",
    "hold_already_voided",
    "hold_expired",
    "already_reversed",
    "not_reversible",
    "transfer_id_reused",
    "idempotency_key_reused",
    # Pledges, solidarity and rent.
    "pledge_running",
    "pledge_ended",
    "too_many_changes",
    "pledge_id_reused",
    "invalid_start",
    "already_exempt",
    "invalid_until",
    "nothing_short",
    "request_open",
    "request_decided",
    "request_id_reused",
    "exceeds_request",
    "gift_id_reused",
    "rent_not_offered",
    "rent_limit_passed",
    "rent_credit_id_reused",
    # Between cities.
    "no_agreement",
    "limit_reached",
    "invalid_deadline",
    "same_city",
    "unknown_city",
    "agreement_exists",
    "agreement_state",
    "netting_id_reused",
    "nothing_to_net",
    "netting_state",
    "netting_expired",
    "netting_does_not_fit",
    # The exchange board.
    "wrong_terms",
    "wrong_days",
    "own_listing",
    "listing_id_reused",
    "exchange_id_reused",
    "listing_closed",
    "listing_open",
    "too_many_listings",
    "too_many_requests",
    "already_requested",
    "already_given",
    "nothing_left",
    "object_taken",
    "object_out",
    "wrong_step",
    "exceeds_deposit",
    "hold_bound",
    "unknown_place",
    "unknown_organisation",
    "unknown_member",
    "unknown_beneficiary",
    "invalid_minutes",
    "invalid_day",
    "mixed_group",
    "contribution_id_reused",
    "group_id_reused",
    "self_confirmation",
    "contribution_ended",
    "too_many_versions",
    "version_changed",
    "nothing_disputed",
    "not_disputed",
    "not_confirmed",
    "exceeds_claim",
]


# Refusals that come from what happened since: a request that was done before may meet them now.
CHANGING: frozenset[RejectionCode] = frozenset(
    {"account_closed", "insufficient_time", "ceiling_exceeded", "balance_out_of_range"}
)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing was done, and why. `side` says which of the two accounts is meant, if one is."""

    code: RejectionCode
    detail: str
    side: Side | None = None
    # The field of the request that is wrong, where it is not an account ("body.minutes").
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Posted:
    """The transfer to write, and the accounts as it leaves them."""

    transfer: Transfer
    accounts: tuple[Account, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same request was done before: this is what it did."""

    transfer: Transfer


Outcome = Posted | Repeated | Rejected


def post_transfer(
    request: TransferRequest, accounts: dict[UUID, Account], now: datetime
) -> Posted | Rejected:
    """Decide one transfer over the accounts as they are; those it does not find do not exist.

    The checks are in the order in which they are looked for, and the first that fails answers.
    """
    refused = (
        check_legs(request.legs)
        or check_payers(request, accounts)
        or check_payees(request, accounts)
        or check_state(request, accounts)
    )
    if refused:
        return refused
    before = [accounts[leg.account_id] for leg in request.legs]
    postings = tuple(map(post_leg, before, request.legs))
    # Clocks differ, and step back: along an account, time does not.
    posted_at = max(now, *[account.posted_at or now for account in before])
    transfer = Transfer(
        id=request.transfer_id,
        city_id=before[0].city_id,
        kind=request.kind,
        reverses=request.reverses,
        requested_by=request.actor.id,
        posted_at=posted_at,
        memo=request.memo or None,
        postings=postings,
        occurred_at=request.occurred_at,
    )
    return Posted(
        transfer,
        tuple(after(*pair, posted_at) for pair in zip(before, postings, strict=True)),
    )


def check_legs(legs: Sequence[Leg]) -> Rejected | None:
    """What can be seen without any account."""
    if not 2 <= len(legs) <= LEGS_MAX:
        return Rejected("wrong_postings", f"A transfer has 2 to {LEGS_MAX} postings.")
    if any(leg.minutes == 0 or abs(leg.minutes) > MINUTES_MAX for leg in legs):
        return Rejected("wrong_postings", f"A posting has 1 to {MINUTES_MAX} minutes.")
    if len({leg.account_id for leg in legs}) != len(legs):
        return Rejected("same_account", "An account cannot give to itself.", "payee")
    if sum(leg.minutes for leg in legs) != 0:
        return Rejected("wrong_postings", "What is given must equal what is received.")
    return None


def check_payers(request: TransferRequest, accounts: dict[UUID, Account]) -> Rejected | None:
    """Everybody who gives must have asked, or a steward of the city for them."""
    for leg in givers(request.legs):
        account = accounts.get(leg.account_id)
        if account is None:
            return Rejected("not_found", "There is no such account.", "payer")
        if request.reverses is not None:
            if not request.actor.is_steward_of(account.city_id):
                return Rejected("forbidden", "Only a steward of the city can take this back.")
        elif not request.actor.may_pay_from(account):
            if request.actor.may_know_of(account.city_id):
                return Rejected("forbidden", "This account is not yours to give from.", "payer")
            return Rejected("not_found", "There is no such account.", "payer")
    return None


def check_payees(request: TransferRequest, accounts: dict[UUID, Account]) -> Rejected | None:
    """Everybody who receives must be there, in the same city."""
    city_id = accounts[next(givers(request.legs)).account_id].city_id
    for leg in request.legs:
        side = side_of(leg)
        account = accounts.get(leg.account_id)
        if account is None:
            return Rejected("account_not_found", "There is no such account.", side)
        if account.city_id != city_id:
            return Rejected(
                "cross_city_not_available",
                "The accounts belong to two cities. Minutes cross cities by clearing:"
                " POST /v1/clearing/transfers.",
                side,
            )
        if account.kind in CLEARING_KINDS and request.kind not in CLEARING_PURPOSES:
            return Rejected(
                "account_reserved", "This account is moved by clearing between cities only.", side
            )
    return None


def check_state(request: TransferRequest, accounts: dict[UUID, Account]) -> Rejected | None:
    """What may be otherwise tomorrow: closed accounts and balances."""
    for leg in request.legs:
        account = accounts[leg.account_id]
        minutes = account.balance_minutes + leg.minutes
        # What was set aside comes home, also to one who left meanwhile: nowhere else is its place.
        comes_home = request.kind == "return" and leg.minutes > 0
        if not account.open and not comes_home:
            return Rejected("account_closed", "This account is closed.", side_of(leg))
        left = account.left_minutes
        if leg.minutes < 0 and left is not None and left + leg.minutes < 0:
            return Rejected(
                "insufficient_time",
                f"The account would stand at {minutes - account.held_minutes} minutes, without"
                f" what it holds for others; its floor is {account.floor_minutes}."
                if account.held_minutes
                else f"The account would stand at {minutes} minutes; its floor is"
                f" {account.floor_minutes}.",
                side_of(leg),
            )
        ceiling = account.ceiling_minutes
        if leg.minutes > 0 and ceiling is not None and minutes > ceiling:
            # Not how far it is: the balance of who receives is not the giver's to know.
            return Rejected("ceiling_exceeded", "The account cannot receive so much.", side_of(leg))
        if abs(minutes) > MINUTES_MAX:
            return Rejected(
                "balance_out_of_range", "The balance would be beyond all measure.", side_of(leg)
            )
    return None


def givers(legs: Iterable[Leg]) -> Iterator[Leg]:
    return (leg for leg in legs if leg.minutes < 0)


def side_of(leg: Leg) -> Side:
    return "payer" if leg.minutes < 0 else "payee"


def post_leg(account: Account, leg: Leg) -> Posting:
    left = None
    if leg.minutes < 0 and account.left_minutes is not None:
        left = account.left_minutes + leg.minutes
    return Posting(
        account_id=account.id,
        minutes=leg.minutes,
        account_version=account.version + 1,
        balance_minutes=account.balance_minutes + leg.minutes,
        left_minutes=left if left is not None and left < WARNING_MARGIN_MINUTES else None,
    )


def after(account: Account, posting: Posting, posted_at: datetime) -> Account:
    """The account with the posting in it."""
    # Written out: `replace` takes five times as long, and every posting comes by here.
    return Account(
        id=account.id,
        city_id=account.city_id,
        kind=account.kind,
        owner_id=account.owner_id,
        open=account.open,
        floor_minutes=account.floor_minutes,
        balance_minutes=posting.balance_minutes,
        version=posting.account_version,
        ceiling_minutes=account.ceiling_minutes,
        held_minutes=account.held_minutes,
        posted_at=posted_at,
    )


def take_back(transfer: Transfer, actor: Actor) -> tuple[Leg, ...] | Rejected:
    """What takes a transfer back whole, whatever its postings were."""
    if not actor.is_steward_of(transfer.city_id):
        if actor.may_know_of(transfer.city_id):
            return Rejected("forbidden", "Only a steward of the city can take this back.")
        return Rejected("not_found", "There is no such transfer.")
    if transfer.kind == "reversal":
        return Rejected("not_reversible", "A reversal is not taken back: transfer again.")
    if transfer.kind in BOUND_KINDS:
        return Rejected(
            "not_reversible", f"This belongs to a {transfer.kind}, which is taken back itself."
        )
    return reversed_legs(transfer)


def reversed_legs(transfer: Transfer) -> tuple[Leg, ...]:
    return tuple(Leg(item.account_id, -item.minutes) for item in transfer.postings)


def set_limits(
    account: Account, actor: Actor, *, floor_minutes: int | None, ceiling_minutes: int | None
) -> Account | Rejected:
    """The account with other limits, which its balance must be within."""
    if not actor.is_steward_of(account.city_id):
        if actor.may_know_of(account.city_id):
            return Rejected("forbidden", "Only a steward of the city sets limits.")
        return Rejected("not_found", "There is no such account.")
    if actor.owns(account):
        return Rejected("forbidden", "The limits of your own account are set by another steward.")
    if account.kind in CLEARING_KINDS:
        return Rejected("account_reserved", "The limits between cities are set by clearing.")
    if floor_minutes is None and account.kind not in FLOORLESS_KINDS:
        return Rejected("floor_required", "Only the commons goes without a floor.")
    changed = replace(account, floor_minutes=floor_minutes, ceiling_minutes=ceiling_minutes)
    if changed.left_minutes is not None and changed.left_minutes < 0:
        return Rejected("limit_passed", "The account stands below this floor already.")
    if ceiling_minutes is not None and account.balance_minutes > ceiling_minutes:
        return Rejected("limit_passed", "The account stands above this ceiling already.")
    return changed


@dataclass(slots=True)
class Books:
    """What a batch needs to know, read under lock; `decide_all` keeps it current as it goes.

    `by_key` is keyed by (who asked, idempotency key); `reversed` are the transfers taken back.
    """

    accounts: dict[UUID, Account] = field(default_factory=dict)
    by_id: dict[UUID, Transfer] = field(default_factory=dict)
    by_key: dict[tuple[str, str], Transfer] = field(default_factory=dict)
    reversed: set[UUID] = field(default_factory=set)


def decide_all(
    requests: Sequence[TransferRequest], books: Books, now: datetime
) -> tuple[Outcome, ...]:
    """Decide requests one after the other, each over what the ones before it left.

    A refused request leaves nothing, so it cannot spoil its neighbours; the floor holds after every
    one of them, not only at the end.
    """
    outcomes = []
    for request in requests:
        outcome = decide(request, books, now)
        if isinstance(outcome, Posted):
            books.accounts.update((account.id, account) for account in outcome.accounts)
            books.by_id[outcome.transfer.id] = outcome.transfer
            if request.reverses is not None:
                books.reversed.add(request.reverses)
        if not isinstance(outcome, Rejected) and request.key is not None:
            books.by_key[request.actor.id, request.key] = outcome.transfer
        outcomes.append(outcome)
    return tuple(outcomes)


def decide(request: TransferRequest, books: Books, now: datetime) -> Outcome:
    """Decide one request: done before, refused, or to be posted."""
    by_key = books.by_key.get((request.actor.id, request.key)) if request.key else None
    if by_key is not None:
        if asks_for(request, by_key) and (not request.own_id or request.transfer_id == by_key.id):
            return Repeated(by_key)
        return Rejected(
            "idempotency_key_reused", "This Idempotency-Key was used with another request."
        )
    decided = post_transfer(request, books.accounts, now)
    if isinstance(decided, Rejected) and decided.code not in CHANGING:
        # First of all: one who may not ask for it learns nothing of what others asked for.
        return decided
    by_id = books.by_id.get(request.transfer_id)
    if by_id is not None:
        if asks_for(request, by_id):
            return Repeated(by_id)
        return Rejected("transfer_id_reused", "Another transfer has this transfer_id.")
    if request.reverses is not None and request.reverses in books.reversed:
        return Rejected("already_reversed", "This transfer was taken back before.")
    return decided


def asks_for(request: TransferRequest, transfer: Transfer) -> bool:
    """Whether the request, field by field, is the one that made the transfer.

    A memo that was erased since can no longer be compared, and agrees with any other.
    """
    legs = {(leg.account_id, leg.minutes) for leg in request.legs}
    return (
        request.reverses == transfer.reverses
        and request.kind == transfer.kind
        and legs == {(item.account_id, item.minutes) for item in transfer.postings}
        and (transfer.memo_erased or (request.memo or None) == transfer.memo)
    )
