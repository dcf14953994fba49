"""Cities that clear with each other by the real rules, over a network that does as it likes.

Each `City` is a book in memory: its transfers are decided by timebank.domain, its clearing by
timebank.clearing.domain; what a database would keep is in its fields. What it sends goes to the
`Network` in one step with what it keeps, as the outbox does it.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

from timebank.clearing import domain as clearing
from timebank.clearing.domain import Agreement, Decision, Outgoing, Pair, Prepare
from timebank.domain import (
    Account,
    AccountKind,
    Actor,
    Leg,
    Posted,
    Rejected,
    TransferKind,
    TransferRequest,
    post_transfer,
)

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROOM = UUID(int=42)


def id_of(*words: object) -> UUID:
    return uuid5(ROOM, " ".join(map(str, words)))


@dataclass(frozen=True)
class Letter:
    """A message on its way; `prepare` goes to the destination, `decision` back to the source."""

    to: str
    prepare: Prepare | None = None
    decision: Decision | None = None


@dataclass
class City:
    name: str
    accounts: dict[UUID, Account] = field(default_factory=dict)
    agreements: dict[str, Agreement] = field(default_factory=dict)
    outgoing: dict[UUID, Outgoing] = field(default_factory=dict)
    incoming: dict[UUID, tuple[Prepare, Decision, int]] = field(default_factory=dict)
    reversed: set[UUID] = field(default_factory=set)
    skew: timedelta = timedelta(0)
    contradictions: int = 0

    def open(self, kind: AccountKind, key: str, floor: int | None, peer: str | None = None) -> None:
        account_id = id_of(self.name, kind, key)
        owner = id_of("member", self.name, key) if kind == "member" else None
        self.accounts[account_id] = Account(account_id, self.name, kind, owner, True, floor, 0, 0)

    def member(self, number: int) -> UUID:
        return id_of("member", self.name, number)

    def account_of(self, member: UUID) -> Account | None:
        return next((a for a in self.accounts.values() if a.owner_id == member), None)

    def pair(self, peer: str) -> Pair:
        return Pair(
            self.accounts[id_of(self.name, "in_transit", peer)],
            self.accounts[id_of(self.name, "clearing", peer)],
            self.accounts[id_of(self.name, "commons", "")],
        )

    def post(self, transfer_id: UUID, purpose: TransferKind, legs: tuple[Leg, ...]) -> bool:
        """Post by the ledger's own rules; False when they refuse, and then nothing changed."""
        actor = Actor("clearing", self.name).for_the_city(self.name)
        request = TransferRequest(transfer_id, True, None, actor, legs, purpose=purpose)
        done = post_transfer(request, self.accounts, START)
        if isinstance(done, Rejected):
            return False
        assert isinstance(done, Posted)
        self.accounts.update((account.id, account) for account in done.accounts)
        return True

    # --- source -----------------------------------------------------------------------------------

    def send(self, prepare: Prepare, payer: UUID, now: datetime) -> Letter | None:
        account = self.account_of(payer)
        assert account is not None
        levy_taken = self.incoming[prepare.reverses][2] if prepare.reverses else 0
        decided = clearing.depart(
            prepare,
            account,
            self.pair(prepare.to_city),
            self.agreements.get(prepare.to_city),
            now,
            levy_taken=levy_taken,
        )
        if isinstance(decided, Rejected):
            return None
        outgoing, legs = decided
        if not self.post(id_of(prepare.transfer_id, "departure"), "departure", legs):
            return None
        self.outgoing[prepare.transfer_id] = outgoing
        return Letter(prepare.to_city, prepare=prepare)

    def hear(self, decision: Decision) -> None:
        outgoing = self.outgoing[decision.transfer_id]
        meaning = clearing.conclude(outgoing, decision)
        pair = self.pair(outgoing.prepare.to_city)
        if meaning == "contradiction":
            self.contradictions += 1
        elif meaning == "settle":
            legs = clearing.settlement_legs(outgoing, pair)
            assert self.post(id_of(decision.transfer_id, "settlement"), "settlement", legs)
            self.outgoing[decision.transfer_id] = replace(outgoing, state="settled")
        elif meaning == "return":
            legs = clearing.return_legs(outgoing, pair)
            assert self.post(id_of(decision.transfer_id, "return"), "return", legs)
            self.outgoing[decision.transfer_id] = replace(outgoing, state="returned")

    def queries(self, now: datetime) -> list[Letter]:
        letters = []
        for each, outgoing in self.outgoing.items():
            if outgoing.state == "sent" and clearing.next_query_at(outgoing) <= now:
                self.outgoing[each] = clearing.queried(outgoing, now)
                letters.append(Letter(outgoing.prepare.to_city, prepare=outgoing.prepare))
        return letters

    # --- destination ------------------------------------------------------------------------------

    def asked(self, prepare: Prepare, now: datetime) -> Letter:
        if prepare.transfer_id not in self.incoming:
            original = self.outgoing.get(prepare.reverses) if prepare.reverses else None
            agreement = self.agreements.get(prepare.from_city)
            payee = self.account_of(prepare.payee)
            decision, legs = clearing.decide(
                prepare,
                payee,
                self.pair(prepare.from_city) if agreement else None,
                agreement,
                now,
                reversed_already=prepare.reverses in self.reversed,
                original=original,
            )
            levy = 0
            if decision.accepted:
                assert self.post(id_of(prepare.transfer_id, "arrival"), "arrival", legs)
                assert agreement is not None
                levy = clearing.levy_in(prepare, agreement, original)
                if prepare.reverses:
                    self.reversed.add(prepare.reverses)
            self.incoming[prepare.transfer_id] = (prepare, decision, levy)
        return Letter(prepare.from_city, decision=self.incoming[prepare.transfer_id][1])


def found(names: list[str], members: int, floor: int) -> dict[str, City]:
    """Cities with members, without agreements."""
    cities = {name: City(name) for name in names}
    for city in cities.values():
        city.open("commons", "", None)
        for number in range(members):
            city.open("member", str(number), floor)
        for peer in names:
            if peer != city.name:
                city.open("in_transit", peer, None, peer)
                city.open("clearing", peer, None, peer)
    return cities


# ── What must hold ──────────────────────────────────────────────────────────────────────────────


def check_always(cities: dict[str, City]) -> None:
    """What holds at every instant, whatever is on its way."""
    for city in cities.values():
        assert sum(account.balance_minutes for account in city.accounts.values()) == 0
        assert city.contradictions == 0
        taken_back = [p.reverses for p, d, _ in city.incoming.values() if d.accepted and p.reverses]
        assert len(taken_back) == len(set(taken_back))
        for account in city.accounts.values():
            assert account.floor_minutes is None or account.balance_minutes >= account.floor_minutes
            assert account.kind != "in_transit" or account.balance_minutes >= 0
        for peer, agreement in city.agreements.items():
            # Taking back leads towards zero, so it is the only thing that a limit does not stop.
            if not any(entry[0].reverses for entry in city.incoming.values()):
                assert city.pair(peer).in_minutes <= agreement.limit_in_minutes
            sent = [o for o in city.outgoing.values() if o.state == "sent"]
            waiting = sum(o.prepare.minutes for o in sent if o.prepare.to_city == peer)
            assert city.pair(peer).in_transit.balance_minutes == waiting
    for one in cities.values():
        for other in cities.values():
            if one.name < other.name:
                assert unexplained(one, other) == 0


def unexplained(one: City, other: City) -> int:
    def sent(city: City, peer: City) -> dict[UUID, int]:
        return {
            each: outgoing.prepare.minutes
            for each, outgoing in city.outgoing.items()
            if outgoing.state == "sent" and outgoing.prepare.to_city == peer.name
        }

    def accepted(city: City, peer: City) -> dict[UUID, int]:
        return {
            each: prepare.minutes
            for each, (prepare, decision, _) in city.incoming.items()
            if decision.accepted and prepare.from_city == peer.name
        }

    return clearing.unexplained(
        one.pair(other.name).clearing.balance_minutes,
        other.pair(one.name).clearing.balance_minutes,
        sent(one, other),
        sent(other, one),
        accepted(one, other),
        accepted(other, one),
    )


def check_at_rest(cities: dict[str, City]) -> None:
    """What holds once every message got through: nothing waits, and both sides tell one story."""
    for city in cities.values():
        for each, outgoing in city.outgoing.items():
            there = cities[outgoing.prepare.to_city].incoming.get(each)
            assert there is not None
            assert outgoing.state == ("settled" if there[1].accepted else "returned")
        for peer in cities:
            if peer != city.name:
                assert city.pair(peer).in_transit.balance_minutes == 0
                ours = city.pair(peer).clearing.balance_minutes
                assert ours + cities[peer].pair(city.name).clearing.balance_minutes == 0
