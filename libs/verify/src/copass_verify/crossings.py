"""Transfers between cities: each departure has one arrival or one return, and nothing else arrives.

What a city's log cannot show yet is not held against it: its checkpoint says until when it tells.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

from copass_verify.entries import Crossing, Step

# How long a transfer may take from its posting into a log.
LATE_S = 300


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where: `index` and `transfer` where it is one entry's."""

    city: str
    index: int | None
    transfer: str | None
    what: str


class Sent(NamedTuple):
    """A departure, and what the source posted about it later."""

    departure: Crossing
    end: Crossing | None


# A crossing without its id: index, minutes, posted_at, number of the peer, step, transfer. There
# may be as many as entries, and packed they take a fifth of what objects take.
PACKED = Struct("<qqdIB36s")
STEPS: tuple[Step, ...] = ("departure", "settlement", "return", "arrival")


@dataclass
class Ledger:
    """The transfers between cities of one city's log."""

    city: str
    # Until when the log tells; epoch seconds.
    told_until: float = 0
    # By the id of the crossing: the departure, with its end behind it once there is one; arrivals.
    _sent: dict[bytes, bytes] = field(default_factory=dict)
    _arrived: dict[bytes, bytes] = field(default_factory=dict)
    _peers: list[str] = field(default_factory=list)
    _peer_numbers: dict[str, int] = field(default_factory=dict)
    in_transit: int = 0

    def add(self, crossing: Crossing) -> str | None:
        """What is wrong with an entry beside the city's own earlier ones."""
        key = crossing.id.encode()
        if crossing.step == "arrival":
            if key in self._arrived:
                return f"transfer {crossing.id} arrives a second time"
            self._arrived[key] = self._pack(crossing)
            return None
        known = self._sent.get(key)
        if crossing.step == "departure":
            if known is not None:
                return f"transfer {crossing.id} departs a second time"
            self._sent[key] = self._pack(crossing)
            self.in_transit += 1
            return None
        if known is None:
            return f"transfer {crossing.id} has a {crossing.step}, and never departed"
        departure, end = self._unpack_sent(key, known)
        if end is not None:
            return f"transfer {crossing.id} has a {end.step} already"
        self._sent[key] = known + self._pack(crossing)
        self.in_transit -= 1
        if (departure.peer, departure.minutes) != (crossing.peer, crossing.minutes):
            return f"transfer {crossing.id} departed to {departure.peer}, {departure.minutes} min"
        return None

    def tells_of(self, posted_at: float) -> bool:
        """Whether what was posted then would be in this log."""
        return posted_at + LATE_S <= self.told_until

    # ── Looking ─────────────────────────────────────────────────────────────────────────────────

    @property
    def arrived(self) -> int:
        return len(self._arrived)

    def has_arrival(self, crossing_id: str) -> bool:
        return crossing_id.encode() in self._arrived

    def find_sent(self, crossing_id: str) -> Sent | None:
        key = crossing_id.encode("utf-8", "surrogatepass")
        packed = self._sent.get(key)
        return self._unpack_sent(key, packed) if packed is not None else None

    def all_ended(self, peers: Container[str]) -> Iterator[tuple[Crossing, Crossing]]:
        """Departures to these cities that were settled or returned, each with its end."""
        wanted = {number for number, peer in enumerate(self._peers) if peer in peers}
        if not wanted:
            return
        for key, packed in self._sent.items():
            if len(packed) > PACKED.size and PACKED.unpack_from(packed)[3] in wanted:
                sent = self._unpack_sent(key, packed)
                if sent.end is not None:
                    yield sent.departure, sent.end

    def all_arrived(self) -> Iterator[Crossing]:
        for key, packed in self._arrived.items():
            yield self._unpack(key, packed)

    # ── Packing ─────────────────────────────────────────────────────────────────────────────────

    def _pack(self, crossing: Crossing) -> bytes:
        peer = self._peer_numbers.setdefault(crossing.peer, len(self._peers))
        if peer == len(self._peers):
            self._peers.append(crossing.peer)
        return PACKED.pack(
            crossing.index,
            crossing.minutes,
            crossing.posted_at,
            peer,
            STEPS.index(crossing.step),
            crossing.transfer.encode(),
        )

    def _unpack(self, key: bytes, packed: bytes) -> Crossing:
        index, minutes, posted_at, peer, step, transfer = PACKED.unpack(packed)
        return Crossing(
            id=key.decode(),
            step=STEPS[step],
            peer=self._peers[peer],
            minutes=minutes,
            index=index,
            transfer=transfer.decode(),
            posted_at=posted_at,
        )

    def _unpack_sent(self, key: bytes, packed: bytes) -> Sent:
        end = packed[PACKED.size :]
        departure = self._unpack(key, packed[: PACKED.size])
        return Sent(departure, self._unpack(key, end) if end else None)


def pair(ledgers: dict[str, Ledger]) -> Iterator[Fault]:
    """What does not fit between the cities whose logs are here."""
    for city, ledger in ledgers.items():
        for arrival in ledger.all_arrived():
            source = ledgers.get(arrival.peer)
            fault = source and check_arrival(arrival, city, source)
            if fault:
                yield Fault(city, arrival.index, arrival.transfer, fault)
        for departure, end in ledger.all_ended(ledgers):
            destination = ledgers[departure.peer]
            if destination.has_arrival(departure.id):
                continue
            if end.step == "settlement" and destination.tells_of(end.posted_at):
                what = f"transfer {end.id} was settled, and {destination.city} shows no arrival"
                yield Fault(city, end.index, end.transfer, what)


def check_arrival(arrival: Crossing, city: str, source: Ledger) -> str | None:
    sent = source.find_sent(arrival.id)
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
