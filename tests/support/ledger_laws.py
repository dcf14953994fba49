"""The six laws of the ledger, as questions to a picture of a book, wherever it is kept.

1. conservation: the postings of each transfer sum to zero, and so do the balances of the book;
2. balance: an account's balance is the sum of its postings, which are numbered without gaps, each
   with the balance after it, and along which time does not run backwards;
3. floor: no balance, without what is held of it, is below its floor, nor above its ceiling;
4. holds: what an account holds is the sum of its open holds;
5. refusal: a refused operation changes nothing (`unchanged`);
6. replay: the events alone, as they were told, give the same state.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

Law = Literal["conservation", "balance", "floor", "holds", "refusal", "replay"]
LAWS: tuple[Law, ...] = ("conservation", "balance", "floor", "holds", "refusal", "replay")


class LawBroken(AssertionError):
    """Which laws do not hold, and how one sees it."""

    def __init__(self, broken: dict[Law, str]) -> None:
        super().__init__("; ".join(f"{law}: {why}" for law, why in broken.items()))
        self.broken = broken


@dataclass(frozen=True, slots=True)
class AccountLine:
    """An account as the book has it; `version` counts its postings."""

    open: bool
    floor_minutes: int | None
    ceiling_minutes: int | None
    balance_minutes: int
    held_minutes: int
    version: int


@dataclass(frozen=True, slots=True)
class PostingLine:
    transfer_id: UUID
    account_id: UUID
    minutes: int
    account_version: int
    balance_minutes: int
    posted_at: datetime


@dataclass(frozen=True, slots=True)
class HoldLine:
    from_account: UUID
    minutes: int
    status: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole book at a moment. `events` are (type, data) in the order in which they were told;
    `rest` is whatever else must not change by itself."""

    accounts: dict[UUID, AccountLine]
    postings: Sequence[PostingLine]
    holds: dict[UUID, HoldLine]
    events: Sequence[tuple[str, dict[str, Any]]]
    rest: Any = None


def check(picture: Picture) -> None:
    """Raises LawBroken, naming every law that does not hold."""
    found: dict[Law, str | None] = {
        "conservation": not_conserved(picture),
        "balance": not_the_sum(picture),
        "floor": beyond_limits(picture),
        "holds": not_what_is_held(picture),
        "replay": not_replayed(picture),
    }
    broken = {law: why for law, why in found.items() if why is not None}
    if broken:
        raise LawBroken(broken)


def unchanged(before: Picture, after: Picture) -> None:
    """Law 5, of an operation that was refused. Raises LawBroken."""
    if before != after:
        raise LawBroken({"refusal": "what was refused left something behind"})


def not_conserved(picture: Picture) -> str | None:
    sums: dict[UUID, int] = defaultdict(int)
    for posting in picture.postings:
        sums[posting.transfer_id] += posting.minutes
    crooked = {transfer_id: minutes for transfer_id, minutes in sums.items() if minutes}
    if crooked:
        return f"transfers that do not sum to zero: {crooked}"
    total = sum(account.balance_minutes for account in picture.accounts.values())
    return f"the balances sum to {total}" if total else None


def not_the_sum(picture: Picture) -> str | None:
    balance: dict[UUID, int] = defaultdict(int)
    count: dict[UUID, int] = defaultdict(int)
    last: dict[UUID, datetime] = {}
    for posting in sorted(picture.postings, key=lambda item: item.account_version):
        of = posting.account_id
        balance[of] += posting.minutes
        count[of] += 1
        if posting.account_version != count[of] or posting.balance_minutes != balance[of]:
            return f"posting {posting.account_version} of account {of} does not continue"
        if posting.posted_at < last.get(of, posting.posted_at):
            return f"posting {posting.account_version} of account {of} is earlier than the last"
        last[of] = posting.posted_at
    for account_id, account in picture.accounts.items():
        if (account.balance_minutes, account.version) != (balance[account_id], count[account_id]):
            return (
                f"account {account_id} stands at {account.balance_minutes} after"
                f" {account.version} postings; they say {balance[account_id]} and"
                f" {count[account_id]}"
            )
    return None


def beyond_limits(picture: Picture) -> str | None:
    for account_id, account in picture.accounts.items():
        floor, ceiling = account.floor_minutes, account.ceiling_minutes
        free = account.balance_minutes - account.held_minutes
        if floor is not None and free < floor:
            return f"account {account_id} has {free} left, below {floor}"
        if ceiling is not None and account.balance_minutes > ceiling:
            return f"account {account_id} stands at {account.balance_minutes}, above {ceiling}"
    return None


def not_what_is_held(picture: Picture) -> str | None:
    held: dict[UUID, int] = defaultdict(int)
    for hold in picture.holds.values():
        if hold.status == "open":
            held[hold.from_account] += hold.minutes
    for account_id, account in picture.accounts.items():
        if account.held_minutes != held[account_id]:
            return f"account {account_id} holds {account.held_minutes}, not {held[account_id]}"
    return None


def not_replayed(picture: Picture) -> str | None:
    replayed = Follower()
    replayed.follow(picture.events)
    accounts, holds = replayed.accounts, replayed.holds
    if accounts != picture.accounts:
        differing = {
            account_id: (accounts.get(account_id), picture.accounts.get(account_id))
            for account_id in accounts.keys() | picture.accounts.keys()
            if accounts.get(account_id) != picture.accounts.get(account_id)
        }
        return f"accounts (from the events, in the book): {differing}"
    return None if holds == picture.holds else f"holds: {holds} is not {picture.holds}"


@dataclass
class Follower:
    """Somebody who knows of a book what its events say, and nothing else.

    As a consumer should: a state with a version that is not higher than the one known is ignored.
    """

    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    transfers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def follow(self, events: Iterable[tuple[str, dict[str, Any]]]) -> None:
        for type_, data in events:
            if type_ == "timebank.transfer.posted.v1":
                self.transfers.setdefault(data["transfer_id"], data)
            elif type_ == "timebank.account.changed.v1":
                self.keep(data["account_id"], data)
            elif type_ == "timebank.hold.changed.v1":
                self.keep(data["hold_id"], data)

    def keep(self, key: str, data: dict[str, Any]) -> None:
        known = self.states.get(key)
        if known is None or known["version"] < data["version"]:
            self.states[key] = data

    @property
    def holds(self) -> dict[UUID, HoldLine]:
        return {
            UUID(key): HoldLine(UUID(data["from_account"]), data["minutes"], data["status"])
            for key, data in self.states.items()
            if "hold_id" in data
        }

    @property
    def accounts(self) -> dict[UUID, AccountLine]:
        balance: dict[str, int] = defaultdict(int)
        count: dict[str, int] = defaultdict(int)
        for transfer in self.transfers.values():
            for posting in transfer["postings"]:
                balance[posting["account_id"]] += posting["minutes"]
                count[posting["account_id"]] += 1
        held: dict[str, int] = defaultdict(int)
        for data in self.states.values():
            if "hold_id" in data and data["status"] == "open":
                held[data["from_account"]] += data["minutes"]
        known = {key: data for key, data in self.states.items() if "hold_id" not in data}
        return {
            UUID(key): AccountLine(
                open=known[key]["status"] == "open" if key in known else False,
                floor_minutes=known[key]["floor_minutes"] if key in known else None,
                ceiling_minutes=known[key]["ceiling_minutes"] if key in known else None,
                balance_minutes=balance[key],
                held_minutes=held[key],
                version=count[key],
            )
            for key in known.keys() | balance.keys() | held.keys()
        }
