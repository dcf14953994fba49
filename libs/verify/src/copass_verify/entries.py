"""Entries of a book: what each must be by itself, and what they must be together.

One entry is one line of canonical JSON (RFC 8785), {"city", "clearing"?, "index", "kind", "lines",
"posted_at", "reverses"?, "transfer", "version"}; the books' side of it is described where it is
written. All that can be wrong is found and named here; `runs` only goes past what is surely right.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

ENTRY_BYTES_MAX = 1_000_000
MINUTES_MAX = 2**53 - 1
LINES_MIN = 2

ACCOUNT = re.compile(r"[0-9a-f]{32}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CITY = re.compile(r"[a-z][a-z0-9-]{1,39}")
STEPS = frozenset({"departure", "settlement", "return", "arrival"})
OF_NOBODY = frozenset({"commons", "solidarity_fund", "in_transit", "clearing"})
OF_PAIRS = frozenset({"in_transit", "clearing"})
REQUIRED = frozenset({"version", "city", "index", "transfer", "kind", "posted_at", "lines"})
ALLOWED = REQUIRED | {"reverses", "clearing"}
LINE_REQUIRED = frozenset({"account", "minutes"})
LINE_ALLOWED = LINE_REQUIRED | {"floor", "is", "peer"}
CROSSING = frozenset({"id", "step", "peer", "minutes"})
NETTING = frozenset({"id", "step"})

Step = Literal["departure", "settlement", "return", "arrival"]


class WrongEntry(ValueError):
    """What is wrong with an entry, in words."""


@dataclass(frozen=True, slots=True)
class Netted:
    """A netting as one city posted it. `moved`: by peer, by how many minutes the position with it
    moved. `posted_at`: epoch seconds."""

    index: int
    transfer: str
    posted_at: float
    moved: dict[str, int]


@dataclass(frozen=True, slots=True)
class Crossing:
    """The part of a transfer between cities that an entry is. `posted_at`: epoch seconds."""

    id: str
    step: Step
    peer: str
    minutes: int
    index: int
    transfer: str
    posted_at: float


def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise WrongEntry("a name stands twice in one object")
    return found


def refuse_fraction(text: str) -> Any:
    raise WrongEntry(f"{text} is no integer")


DECODER = json.JSONDecoder(
    object_pairs_hook=refuse_twice, parse_float=refuse_fraction, parse_constant=refuse_fraction
)

ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def read_object(raw: bytes) -> dict[str, Any]:
    """One JSON object that every reader understands alike. Raises WrongEntry."""
    if len(raw) > ENTRY_BYTES_MAX:
        raise WrongEntry("it is too long")
    try:
        value = DECODER.decode(raw.decode("utf-8"))
    except WrongEntry:
        raise
    except (ValueError, RecursionError) as error:
        raise WrongEntry("it is no JSON") from error
    if type(value) is not dict:
        raise WrongEntry("it is no JSON object")
    return value


def is_minutes(value: Any) -> bool:
    return type(value) is int and -MINUTES_MAX <= value <= MINUTES_MAX


def matches(pattern: re.Pattern[str], value: Any) -> bool:
    return type(value) is str and pattern.fullmatch(value) is not None


def need(condition: bool, what: str) -> None:
    if not condition:
        raise WrongEntry(what)


def read_entry(raw: bytes) -> tuple[dict[str, Any], bool]:
    """An entry, and whether it is written in the one way that there is. Raises WrongEntry.

    What is written canonically has no name twice, so only the rest is read in the careful way.
    Names are ASCII and numbers integers, for which this is RFC 8785.
    """
    if len(raw) <= ENTRY_BYTES_MAX:
        try:
            text = raw.decode("utf-8")
            value = json.loads(text)
            if ENCODER.encode(value) == text and type(value) is dict:
                return value, True
        except (ValueError, RecursionError):
            pass
    return read_object(raw), False


@dataclass
class Book:
    """What is known of a city's book after the entries so far.

    Grows with the accounts (a balance each) and the transfers (their ids), not with what the
    entries say. Texts are bytes, as they stand in the file.
    """

    city: str
    # Whether all entries are here from the first; else balances and what was before are unknown.
    whole: bool = True
    size: int = 0
    balances: dict[bytes, int] = field(default_factory=dict)
    # What an account that is nobody's is, and with which city: (is, peer). None: somebody's.
    of_nobody: dict[bytes, tuple[str, str | None]] = field(default_factory=dict)
    transfers: set[bytes] = field(default_factory=set)
    taken_back: set[bytes] = field(default_factory=set)
    netted: dict[str, Netted] = field(default_factory=dict)

    def add(self, raw: bytes) -> Crossing | None:
        """Take the next entry in; its part between cities, if it is one.

        Raises WrongEntry. What can be taken in of a wrong entry still is, so that the ones after
        it are judged by themselves.
        """
        index, self.size = self.size, self.size + 1
        entry, canonical = read_entry(raw)
        need(REQUIRED <= entry.keys() <= ALLOWED, "its fields are others")
        need(type(entry["version"]) is int and entry["version"] == 1, "its version is not 1")
        need(entry["city"] == self.city, "it is of another city")
        need(type(entry["index"]) is int, "its number is no number")
        need(matches(UUID, entry["transfer"]), "its transfer is no UUID")
        lines = entry["lines"]
        need(type(lines) is list and len(lines) >= LINES_MIN, "it has fewer than two lines")
        moved = [self.read_line(line) for line in lines]
        broken = self.post(moved, lines)
        if entry["index"] != index:
            raise WrongEntry(f"it says that it is number {entry['index']}")
        if broken is not None:
            raise WrongEntry(broken)
        transfer = entry["transfer"].encode()
        need(transfer not in self.transfers, "its transfer was there before")
        self.transfers.add(transfer)
        posted_at = read_time(entry["posted_at"])
        need(type(entry["kind"]) is str, "its kind is no text")
        self.check_reversal(entry)
        crossing = self.check_crossing(entry, index, posted_at)
        need(canonical, "it is not written canonically")
        return crossing

    def read_line(self, line: Any) -> tuple[bytes, int]:
        need(type(line) is dict, "a line is no object")
        need(
            line.keys() >= LINE_REQUIRED and line.keys() <= LINE_ALLOWED, "a line has other fields"
        )
        account, minutes = line["account"], line["minutes"]
        need(matches(ACCOUNT, account), "a line's account is no name")
        need(is_minutes(minutes) and minutes != 0, "a line's minutes are no whole number but 0")
        need("floor" not in line or is_minutes(line["floor"]), "a floor is no whole number")
        named = [line[name] for name in ("is", "peer") if name in line]
        need(all(type(name) is str for name in named), "what an account is, is no text")
        return account.encode(), minutes

    def post(self, moved: list[tuple[bytes, int]], lines: list[dict[str, Any]]) -> str | None:
        """Move the balances; what is wrong with that."""
        wrong = None
        if total := sum([minutes for _, minutes in moved]):
            wrong = f"its lines sum to {total}, not to 0"
        if len({account for account, _ in moved}) != len(moved):
            wrong = wrong or "an account stands in it twice"
        for (account, minutes), line in zip(moved, lines, strict=True):
            balance = self.balances.get(account, 0) + minutes
            wrong = wrong or self.check_owner(account, line)
            self.balances[account] = balance
            if self.whole and "floor" in line and balance < line["floor"]:
                wrong = wrong or (
                    f"account {account.decode()} goes to {balance} minutes, below its floor"
                    f" {line['floor']}"
                )
        return wrong

    def check_owner(self, account: bytes, line: dict[str, Any]) -> str | None:
        """An account stays what it is said to be the first time."""
        kind, peer = line.get("is"), line.get("peer")
        if account not in self.balances and kind is not None:
            if kind not in OF_NOBODY or (kind in OF_PAIRS) != matches(CITY, peer):
                return f"account {account.decode()} is of no kind that there is"
            self.of_nobody[account] = (kind, peer)
            return None
        expected = self.of_nobody.get(account, (None, None))
        if (kind, peer) != expected:
            return f"account {account.decode()} was another kind before"
        return None

    def check_reversal(self, entry: dict[str, Any]) -> None:
        reverses = entry.get("reverses")
        need(
            (entry["kind"] == "reversal") == ("reverses" in entry), "a reversal names one transfer"
        )
        if reverses is None:
            return
        need(matches(UUID, reverses), "what it takes back is no transfer")
        taken = reverses.encode()
        need(
            not self.whole or taken in self.transfers,
            f"it takes back {reverses}, which was not there before",
        )
        need(taken not in self.taken_back, f"it takes back {reverses} a second time")
        self.taken_back.add(taken)

    def check_crossing(
        self, entry: dict[str, Any], index: int, posted_at: float
    ) -> Crossing | None:
        told = entry.get("clearing")
        if entry["kind"] == "netting":
            self.add_netting(entry, index, posted_at)
            return None
        need((entry["kind"] in STEPS) == (told is not None), "its kind and its clearing differ")
        pairs = [line for line in entry["lines"] if "is" in line and line["is"] in OF_PAIRS]
        if told is None:
            need(not pairs, "it moves what is between cities, and says nothing of it")
            return None
        need(type(told) is dict and told.keys() == CROSSING, "its clearing has other fields")
        step, peer, minutes = told["step"], told["peer"], told["minutes"]
        need(matches(UUID, told["id"]) and matches(CITY, peer), "its clearing is with nobody")
        need(step == entry["kind"], "its kind and its clearing differ")
        need(is_minutes(minutes) and minutes > 0, "its clearing is of no minutes")
        moved = sorted((line["is"], line["minutes"]) for line in pairs)
        expected = {
            "departure": [("in_transit", minutes)],
            "settlement": [("clearing", minutes), ("in_transit", -minutes)],
            "return": [("in_transit", -minutes)],
            "arrival": [("clearing", -minutes)],
        }
        need(
            moved == expected[step] and all(line["peer"] == peer for line in pairs),
            f"its lines are not those of the {step} of {minutes} minutes",
        )
        return Crossing(told["id"], step, peer, minutes, index, entry["transfer"], posted_at)

    def add_netting(self, entry: dict[str, Any], index: int, posted_at: float) -> None:
        """What several cities owe each other in a circle becomes less: one line for each pair."""
        told, lines = entry.get("clearing", {}), entry["lines"]
        need(type(told) is dict and told.keys() == NETTING, "its clearing has other fields")
        need(told["step"] == "netting" and matches(UUID, told["id"]), "its netting has no id")
        need(all(line.get("is") == "clearing" for line in lines), "a netting moves pairs alone")
        moved = {line["peer"]: line["minutes"] for line in lines}
        need(len(moved) == len(lines), "a netting moves a pair once")
        need(told["id"] not in self.netted, f"netting {told['id']} was there before")
        self.netted[told["id"]] = Netted(index, entry["transfer"], posted_at, moved)


def read_time(value: Any) -> float:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise WrongEntry("its time is no time") from error
    need(moment.tzinfo is not None, "its time has no zone")
    return moment.timestamp()
