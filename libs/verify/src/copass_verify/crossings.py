"""Transfers between cities: each departure has one arrival or one return, and nothing else arrives.

What a city's log cannot show yet is not held against it: its checkpoint says until when it tells.
"""

from dataclasses import dataclass, field

from copass_verify.entries import Crossing

# How long a transfer may take from its posting into a log.
LATE_S = 300


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where: `index` and `transfer` where it is one entry's."""

    city: str
    index: int | None
    transfer: str | None
    what: str


@dataclass(slots=True)
class Sent:
    """A departure, and what the source posted about it later."""

    departure: Crossing
    end: Crossing | None = None


@dataclass
class Ledger:
    """The transfers between cities of one city's log."""

    city: str
    # Until when the log tells; epoch seconds.
    told_until: float = 0
    sent: dict[str, Sent] = field(default_factory=dict)
    arrived: dict[str, Crossing] = field(default_factory=dict)

    def add(self, crossing: Crossing) -> str | None:
        """What is wrong with an entry beside the city's own earlier ones."""
        if crossing.step == "arrival":
            if crossing.id in self.arrived:
                return f"transfer {crossing.id} arrives a second time"
            self.arrived[crossing.id] = crossing
            return None
        if crossing.step == "departure":
            if crossing.id in self.sent:
                return f"transfer {crossing.id} departs a second time"
            self.sent[crossing.id] = Sent(crossing)
            return None
        known = self.sent.get(crossing.id)
        if known is None:
            return f"transfer {crossing.id} has a {crossing.step}, and never departed"
        if known.end is not None:
            return f"transfer {crossing.id} has a {known.end.step} already"
        known.end = crossing
        departure = known.departure
        if (departure.peer, departure.minutes) != (crossing.peer, crossing.minutes):
            return f"transfer {crossing.id} departed to {departure.peer}, {departure.minutes} min"
        return None

    def tells_of(self, posted_at: float) -> bool:
        """Whether what was posted then would be in this log."""
        return posted_at + LATE_S <= self.told_until

    @property
    def in_transit(self) -> int:
        return sum(sent.end is None for sent in self.sent.values())


def pair(ledgers: dict[str, Ledger]) -> list[Fault]:
    """What does not fit between the cities whose logs are here."""
    faults = []
    for city, ledger in ledgers.items():
        for arrival in ledger.arrived.values():
            source = ledgers.get(arrival.peer)
            fault = source and check_arrival(arrival, city, source)
            if fault:
                faults.append(Fault(city, arrival.index, arrival.transfer, fault))
        for sent in ledger.sent.values():
            destination = ledgers.get(sent.departure.peer)
            end = sent.end
            if destination is None or end is None or sent.departure.id in destination.arrived:
                continue
            if end.step == "settlement" and destination.tells_of(end.posted_at):
                what = f"transfer {end.id} was settled, and {destination.city} shows no arrival"
                faults.append(Fault(city, end.index, end.transfer, what))
    return faults


def check_arrival(arrival: Crossing, city: str, source: Ledger) -> str | None:
    sent = source.sent.get(arrival.id)
    if sent is None:
        if source.tells_of(arrival.posted_at):
            return f"transfer {arrival.id} arrives, and never departed from {source.city}"
        return None
    departure = sent.departure
    if (departure.peer, departure.minutes) != (city, arrival.minutes):
        return (
            f"transfer {arrival.id} departed from {source.city} as {departure.minutes} minutes to"
            f" {departure.peer}"
        )
    if sent.end is not None and sent.end.step == "return":
        return f"transfer {arrival.id} arrived, and went back to its payer in {source.city} too"
    return None
