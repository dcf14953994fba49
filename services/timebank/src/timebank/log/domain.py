"""What an entry of the log says, and in which order entries follow each other. Pure.

An entry is the canonical JSON (RFC 8785) of

    {"city", "index", "kind", "lines": [{"account", "minutes", "floor"?, "is"?, "peer"?}],
     "posted_at", "transfer", "reverses"?, "clearing"?: {"id", "minutes", "peer", "step"},
     "version": 1}

`account` is a name that means nothing without its salt. `is` and `peer` stand with the accounts
that are nobody's: commons, solidarity_fund, in_transit, clearing. `floor` stands with what gives
minutes, when it is known how far the account was allowed to go. Of a netting, `clearing` is {"id",
"step"}, and the lines name the peers.
"""

import hmac
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from heapq import heappop, heappush
from typing import Any, Literal
from uuid import UUID

import rfc8785

from timebank.domain import AccountKind, TransferKind

VERSION = 1
ORIGIN_PREFIX = "copass/"
SALT_BYTES = 32

Step = Literal["departure", "settlement", "return", "arrival", "netting"]

# What was set aside comes home whatever the limits say by then; a settlement touches nobody.
WITHOUT_FLOOR: frozenset[str] = frozenset({"return", "settlement", "arrival"})
OF_PERSONS: frozenset[str] = frozenset({"member", "organisation"})


@dataclass(frozen=True, slots=True)
class Line:
    """A posting that is not in the log yet. `floor_minutes`: the floor of then, None if unknown."""

    account_id: UUID
    account_version: int
    transfer_id: UUID
    minutes: int
    kind: AccountKind
    peer_city_id: str | None
    floor_minutes: int | None


@dataclass(frozen=True, slots=True)
class Crossing:
    """Which part of a transfer between cities a transfer of the book is. Of a netting, the lines
    say with whom and how much."""

    id: UUID
    step: Step
    peer_city_id: str | None = None
    minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A transfer that is not in the log yet. `lines`: how many postings it has in all."""

    id: UUID
    kind: TransferKind
    posted_at: datetime
    reverses: UUID | None
    lines: int
    crossing: Crossing | None = None


def origin_of(city_id: str) -> str:
    """The name of a city's log, and of the key that signs its checkpoints."""
    return ORIGIN_PREFIX + city_id


def name_account(account_id: UUID, salt: bytes) -> str:
    """What the account is called in the log: 32 hexadecimal digits."""
    return hmac.new(salt, b"copass account v1\n" + account_id.bytes, sha256).hexdigest()[:32]


def put_in_order(waiting: Sequence[Waiting], lines: Sequence[Line]) -> list[Waiting]:
    """The transfers that can follow now, each after all those that any of its accounts had before.

    `lines` of an account go on without a gap from what is in the log already. A transfer of which
    a line is missing waits, and so does all that follows it. Between transfers that do not depend
    on each other, the earlier one goes first.
    """
    by_id = {transfer.id: transfer for transfer in waiting}
    queues: dict[UUID, deque[UUID]] = defaultdict(deque)
    for line in sorted(lines, key=lambda line: line.account_version):
        queues[line.account_id].append(line.transfer_id)
    accounts: dict[UUID, list[UUID]] = defaultdict(list)
    for line in lines:
        accounts[line.transfer_id].append(line.account_id)
    in_front: dict[UUID, int] = defaultdict(int)
    ready: list[tuple[datetime, UUID]] = []

    def step_forward(account_id: UUID) -> None:
        if queues[account_id]:
            transfer = by_id[queues[account_id][0]]
            in_front[transfer.id] += 1
            if in_front[transfer.id] == transfer.lines:
                heappush(ready, (transfer.posted_at, transfer.id))

    for account_id in queues:
        step_forward(account_id)
    ordered = []
    while ready:
        _, transfer_id = heappop(ready)
        ordered.append(by_id[transfer_id])
        for account_id in accounts[transfer_id]:
            queues[account_id].popleft()
            step_forward(account_id)
    return ordered


def write_entry(
    city_id: str,
    index: int,
    transfer: Waiting,
    lines: Sequence[Line],
    names: Mapping[UUID, str],
) -> bytes:
    """The entry of a transfer: the bytes that are hashed, kept and shown."""
    entry: dict[str, Any] = {
        "version": VERSION,
        "city": city_id,
        "index": index,
        "transfer": str(transfer.id),
        "kind": transfer.kind,
        "posted_at": transfer.posted_at.astimezone(UTC).isoformat(timespec="microseconds"),
        "lines": sorted(
            (write_line(transfer, line, names[line.account_id]) for line in lines),
            key=lambda line: str(line["account"]),
        ),
    }
    if transfer.reverses is not None:
        entry["reverses"] = str(transfer.reverses)
    if transfer.crossing is not None:
        entry["clearing"] = {
            "id": str(transfer.crossing.id),
            "step": transfer.crossing.step,
        }
        if transfer.crossing.step != "netting":
            entry["clearing"] |= {
                "peer": transfer.crossing.peer_city_id,
                "minutes": transfer.crossing.minutes,
            }
    return rfc8785.dumps(entry)


def write_line(transfer: Waiting, line: Line, name: str) -> dict[str, Any]:
    written: dict[str, Any] = {"account": name, "minutes": line.minutes}
    gives = line.minutes < 0 and transfer.kind not in WITHOUT_FLOOR
    if gives and line.floor_minutes is not None:
        written["floor"] = line.floor_minutes
    if line.kind not in OF_PERSONS:
        written["is"] = line.kind
    if line.peer_city_id is not None:
        written["peer"] = line.peer_city_id
    return written
