"""Cities that also net what they owe each other, by the real rules, in memory.

What a database would keep is in the fields; a letter is sent in the same step as what it tells of
is kept, as the outbox does it. A letter of netting is a tuple (to, kind, who says it, what).
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from clearing_cities import City, id_of

from timebank.clearing.domain import Pair
from timebank.domain import Rejected
from timebank.netting import domain as netting
from timebank.netting.domain import Netting, Plan, Room

Note = tuple[str, str, str, Any]


@dataclass
class NettingCity(City):
    nettings: dict[UUID, Netting] = field(default_factory=dict)
    # Of the nettings that it decides: who agreed (True) or refused.
    answers: dict[UUID, dict[str, bool]] = field(default_factory=dict)
    # The complete sets of signatures that it holds: (committed, the digest each city agreed to).
    decisions: dict[UUID, tuple[bool, dict[str, str]]] = field(default_factory=dict)
    posted: list[UUID] = field(default_factory=list)

    def set_aside(self, peer: str) -> tuple[int, int]:
        """By how much agreed nettings will raise and lower the position with a peer."""
        changes = [
            each.plan.changes_of(self.name).get(peer, 0)
            for each in self.nettings.values()
            if each.state == "agreed"
        ]
        return sum(c for c in changes if c > 0), -sum(c for c in changes if c < 0)

    def set_aside_of_all(self) -> int:
        return sum(sum(self.set_aside(peer)) for peer in self.agreements)

    def pair(self, peer: str) -> Pair:
        up, down = self.set_aside(peer)
        return replace(super().pair(peer), netting_up_minutes=up, netting_down_minutes=down)

    def room(self, peer: str) -> Room:
        pair = self.pair(peer)
        return Room(
            peer in self.agreements and self.agreements[peer].state in ("active", "suspended"),
            pair.clearing.balance_minutes,
            pair.netting_up_minutes,
            pair.netting_down_minutes,
            self.agreements[peer].limit_out_minutes - pair.out_minutes,
        )

    # --- what its stewards do ---------------------------------------------------------------------

    def propose(self, plan: Plan) -> list[Note]:
        self.nettings[plan.netting_id] = Netting(plan, self.name, "proposed")
        self.answers[plan.netting_id] = {}
        return self.others(plan, "proposed", plan)

    def others(self, plan: Plan, kind: str, what: Any) -> list[Note]:
        return [(city, kind, self.name, what) for city in plan.cities if city != self.name]

    def agree(self, netting_id: UUID, now: datetime) -> list[Note]:
        known = self.nettings[netting_id]
        rooms = {peer: self.room(peer) for peer in known.plan.changes_of(self.name)}
        agreed = netting.agree(known, rooms, now)
        if isinstance(agreed, Rejected):
            return []
        self.nettings[netting_id] = agreed
        return self.decide(agreed, now) if agreed.decides else [self.says_so(agreed)]

    def says_so(self, known: Netting) -> Note:
        said = (known.plan.netting_id, known.plan.digest())
        return (known.plan.decider, "agreed", self.name, said)

    def refuse(self, netting_id: UUID, now: datetime) -> list[Note]:
        known = self.nettings[netting_id]
        refused = netting.refuse(known)
        if isinstance(refused, Rejected):
            return []
        self.nettings[netting_id] = refused
        if refused.decides:
            return self.decide(refused, now)
        return [(known.plan.decider, "refused", self.name, (netting_id, known.plan.digest()))]

    # --- what it hears ----------------------------------------------------------------------------

    def hears(self, kind: str, sender: str, what: Any, now: datetime) -> list[Note]:
        if kind == "proposed":
            return self.hears_plan(what)
        if kind == "decided":
            return self.hears_decision(*what)
        return self.hears_answer(kind, sender, *what, now)

    def hears_plan(self, plan: Plan) -> list[Note]:
        netting.check_plan(plan)
        known = self.nettings.setdefault(plan.netting_id, Netting(plan, self.name, "proposed"))
        if known.state == "refused":
            return [(plan.decider, "refused", self.name, (plan.netting_id, plan.digest()))]
        return []

    def hears_answer(
        self, kind: str, sender: str, netting_id: UUID, digest: str, now: datetime
    ) -> list[Note]:
        known = self.nettings.get(netting_id)
        if known is None or known.plan.digest() != digest:
            return []
        if netting_id in self.decisions:
            return [(sender, "decided", self.name, (netting_id, *self.decisions[netting_id]))]
        if not known.decides:
            return []
        self.answers[netting_id].setdefault(sender, kind == "agreed")
        return self.decide(known, now)

    def hears_decision(
        self, netting_id: UUID, committed: bool, signed: dict[str, str]
    ) -> list[Note]:
        known = self.nettings.get(netting_id)
        if known is None:
            return []
        if committed:
            assert signed == dict.fromkeys(known.plan.cities, known.plan.digest())
        self.decisions.setdefault(netting_id, (committed, signed))
        self.conclude(known, committed)
        return []

    def decide(self, known: Netting, now: datetime) -> list[Note]:
        plan = known.plan
        decided = netting.decide(known, self.answers[plan.netting_id], now)
        if decided is None:
            return []
        committed = decided == "commit"
        signed = dict.fromkeys(plan.cities, plan.digest()) if committed else {}
        self.decisions[plan.netting_id] = (committed, signed)
        self.conclude(known, committed)
        return self.others(plan, "decided", (plan.netting_id, committed, signed))

    def conclude(self, known: Netting, committed: bool) -> None:
        meaning = netting.conclude(known, committed=committed)
        if meaning == "contradiction":
            self.contradictions += 1
        if meaning == "post":
            peers = known.plan.changes_of(self.name)
            accounts = {peer: self.pair(peer).clearing.id for peer in peers}
            legs = netting.legs_of(known, accounts)
            number = len(self.posted)
            assert self.post(id_of(known.plan.netting_id, self.name, number), "netting", legs)
            self.posted.append(known.plan.netting_id)
        self.nettings[known.plan.netting_id] = netting.concluded(known, meaning)

    def speaks_again(self, since: datetime, now: datetime) -> list[Note]:
        notes: list[Note] = []
        for netting_id, known in list(self.nettings.items()):
            lapsed = netting.lapse(known, now)
            self.nettings[netting_id] = lapsed
            due = netting.speaks_again_at(lapsed, since)
            if due is None or due > now:
                continue
            self.nettings[netting_id] = netting.spoken_again(lapsed, now)
            if lapsed.decides:
                answered = self.answers[netting_id]
                notes += [
                    note
                    for note in self.others(lapsed.plan, "proposed", lapsed.plan)
                    if note[0] not in answered
                ]
                notes += self.decide(self.nettings[netting_id], now)
            else:
                said = self.says_so(lapsed)
                notes.append(said)
                if lapsed.asks >= netting.ASKS_BEFORE_OTHERS:
                    notes += self.others(lapsed.plan, "agreed", said[3])
        return notes


def to_netting_cities(cities: dict[str, City]) -> dict[str, NettingCity]:
    return {name: NettingCity(name, accounts=city.accounts) for name, city in cities.items()}


def moved(city: NettingCity, peer: str) -> dict[UUID, int]:
    """By netting, what it moved of the position with a peer, as far as it is posted here."""
    return {
        each: city.nettings[each].plan.changes_of(city.name)[peer]
        for each in city.posted
        if peer in city.nettings[each].plan.changes_of(city.name)
    }
