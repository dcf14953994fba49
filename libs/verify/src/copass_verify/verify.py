"""Verifies bundles: signatures, roots, every entry, and what crosses between cities.

All that is wrong is found and told, each fault with the entry where it is; nothing is believed but
the keys. What is held in memory grows with accounts and transfers (some 100 bytes each), not with
the size of the files.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter

from copass_verify.bundle import Bundle, CityFiles, WrongBundle
from copass_verify.checkpoints import WrongCheckpoint
from copass_verify.crossings import Fault, Ledger, pair
from copass_verify.entries import Book, Crossing, Netted, WrongEntry
from copass_verify.excerpts import Excerpt, ExcerptReport, check_excerpt, pair_excerpts
from copass_verify.keys import Chain
from copass_verify.merkle import Frontier, hash_leaf, root_of
from copass_verify.messages import read_message
from copass_verify.netted import pair_nettings
from copass_verify.notes import Verifier, WrongNote
from copass_verify.parts import Lines, read_parts
from copass_verify.runs import Runs
from copass_verify.signed import Seen, opener
from copass_verify.trust import Trust, believe

FAULTS_MAX = 1000

# Called with a city, how many of its entries are done, and how many it signed.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class CityReport:
    """What a city's log holds. `cosigned_by`: who cosigned its last checkpoint."""

    city: str
    source: str
    entries: int
    checkpoints: int
    accounts: int
    in_transit: int
    arrived: int
    messages: int
    cosigned_by: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass
class Report:
    """`faults` in the order in which they were found, of each city the first entry first; beyond
    1000 they are only counted in `more`."""

    cities: list[CityReport] = field(default_factory=list)
    excerpts: list[ExcerptReport] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    more: int = 0
    # Whose keys were believed, and the last checkpoint of each city in each file.
    trust: Trust | None = field(default=None, repr=False)
    last: dict[tuple[str, str], Seen] = field(default_factory=dict, repr=False)

    @property
    def sound(self) -> bool:
        return not self.faults

    def tell(self, fault: Fault) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(fault)
        else:
            self.more += 1


def verify(
    bundles: Sequence[Bundle],
    *,
    pinned: Sequence[Verifier] = (),
    cosigners_min: int = 0,
    progress: Progress | None = None,
    apart: bool = False,
) -> Report:
    """Verify bundles together: where they tell of the same city, they must tell the same.

    `pinned`: keys known from elsewhere; a city with a pinned key must have signed with that one.
    `cosigners_min`: how many other cities must have cosigned each city's last checkpoint.
    `apart`: large books may be hashed in a process of its own, which starts as `multiprocessing`
    does: a script that allows it keeps its own start behind `if __name__ == "__main__"`.
    Raises WrongBundle when a file is missing from a bundle.
    """
    report = Report()
    copies: dict[str, list[CityFiles]] = {}
    for bundle in bundles:
        for files in bundle.cities:
            if not files.excerpt:
                copies.setdefault(files.city, []).append(files)
    trust = believe(bundles, pinned, lambda city, what: report.tell(Fault(city, None, None, what)))
    report.trust = trust
    seen: dict[str, dict[int, Seen]] = {}
    own: dict[tuple[str, str], dict[int, Seen]] = {}
    for city, parts in copies.items():
        seen[city] = {}
        for one in parts:
            found = read_checkpoints(report, one, trust.logs[city], trust.cosigners)
            own[city, str(one.source)] = found
            if found:
                report.last[city, str(one.source)] = found[max(found)]
            merge(report, city, seen[city], found)
    check_excerpts(report, bundles, trust, seen, cosigners_min)
    chains = trust.chains()
    ledgers: dict[str, Ledger] = {}
    netted: dict[str, dict[str, Netted]] = {}
    for city, parts in copies.items():
        lengths = [max(own[city, str(one.source)], default=0) for one in parts]
        longest = parts[lengths.index(max(lengths))]
        for one in parts:
            check = CityCheck(report, one, seen[city], own[city, str(one.source)])
            book, ledger = check.run(progress, apart=apart)
            if one is not longest:
                continue
            ledgers[city] = ledger
            netted[city] = book.netted
            answers = check_messages(report, one, ledger, chains)
            report.cities.append(
                summary(one, book, ledger, own[city, str(one.source)], trust.logs[city], answers)
            )
            count = len(report.cities[-1].cosigned_by)
            if count < cosigners_min:
                what = f"{count} cities cosigned its last checkpoint, not {cosigners_min}"
                report.tell(Fault(city, None, None, what))
    for fault in (*pair(ledgers), *pair_nettings(netted, ledgers)):
        report.tell(fault)
    return report


def check_excerpts(
    report: Report,
    bundles: Sequence[Bundle],
    trust: Trust,
    seen: dict[str, dict[int, Seen]],
    cosigners_min: int,
) -> None:
    """Look at all excerpts; their checkpoints are held against those of the whole books."""
    excerpts: list[Excerpt] = []
    roots: dict[str, dict[int, Seen]] = {}
    for files in (one for bundle in bundles for one in bundle.cities if one.excerpt):
        chain = trust.logs[files.city]
        excerpt = check_excerpt(files, chain, opener(chain, trust.cosigners, str(files.source)))
        excerpts.append(excerpt)
        report.excerpts.append(excerpt.report)
        for fault in excerpt.faults:
            report.tell(fault)
        for number, raw in enumerate(files.lines("messages.jsonl"), start=1):
            try:
                read_message(raw, trust.chains())
            except WrongEntry as error:
                report.tell(Fault(files.city, None, None, f"message {number}: {error}"))
        merge(
            report, files.city, seen.get(files.city, roots.setdefault(files.city, {})),
            excerpt.checkpoints,
        )  # fmt: skip
        count = len(excerpt.report.cosigned_by)
        if count < cosigners_min:
            what = f"{count} cities cosigned its last checkpoint, not {cosigners_min}"
            report.tell(Fault(files.city, None, None, what))
    for fault in pair_excerpts(excerpts):
        report.tell(fault)


def summary(
    files: CityFiles,
    book: Book,
    ledger: Ledger,
    checkpoints: Mapping[int, Seen],
    chain: Chain,
    messages: int,
) -> CityReport:
    last = checkpoints[max(checkpoints)] if checkpoints else None
    return CityReport(
        city=files.city,
        source=str(files.source),
        entries=book.size,
        checkpoints=len(checkpoints),
        accounts=len(book.balances),
        in_transit=ledger.in_transit,
        arrived=ledger.arrived,
        messages=messages,
        cosigned_by=last.cosigned_by if last else (),
        keys=tuple(str(key) for key in chain.verifiers()),
    )


# ── Checkpoints ─────────────────────────────────────────────────────────────────────────────────


def read_checkpoints(
    report: Report, files: CityFiles, chain: Chain, cosigners: Sequence[Verifier]
) -> dict[int, Seen]:
    """The checkpoints of a bundle that the city signed, by size; the others are faults."""
    city = files.city
    open_signed = opener(chain, cosigners, str(files.source))
    found: dict[int, Seen] = {}
    for number, raw in enumerate(files.notes(), start=1):
        try:
            one = open_signed(raw)
        except (WrongNote, WrongCheckpoint) as error:
            report.tell(Fault(city, None, None, f"checkpoint {number}: {error}"))
            continue
        merge(report, city, found, {one.checkpoint.size: one})
    if not found:
        report.tell(Fault(city, None, None, "it signed no checkpoint"))
    return found


def merge(report: Report, city: str, known: dict[int, Seen], found: Mapping[int, Seen]) -> None:
    """Add checkpoints; two roots for one size are two histories."""
    for size, one in found.items():
        other = known.setdefault(size, one)
        if other.checkpoint.root != one.checkpoint.root:
            what = f"two histories: it signed two roots for {size} entries"
            report.tell(Fault(city, None, None, what))


# ── Entries ─────────────────────────────────────────────────────────────────────────────────────


class CityCheck:
    """The reading of one city's entries, from the first to the last."""

    def __init__(
        self, report: Report, files: CityFiles, seen: Mapping[int, Seen], own: Mapping[int, Seen]
    ) -> None:
        self.report = report
        self.files = files
        self.city = files.city
        self.sizes = sorted(size for size in seen if size > 0)
        self.seen = seen
        self.own = own
        self.own_last = max(own, default=0)
        self.book = Book(self.city)
        self.ledger = Ledger(self.city, own[self.own_last].time if own else 0)
        self.tree = Frontier()
        self.good_size = 0
        self.broken_at: int | None = None
        # What is wrong in the part that is being read: where, and the fault.
        self.found: list[tuple[float, Fault]] = []

    def run(self, progress: Progress | None, *, apart: bool) -> tuple[Book, Ledger]:
        runs = Runs(self.book)
        for part in read_parts(self.files, apart=apart):
            for size, root in self.hash(part):
                self.compare(size, root)
            for index, noted in runs.take(part.text, part.rows):
                self.note(index, noted)
            # In the order of the entries, a root after the last entry under it.
            for _, fault in sorted(self.found, key=itemgetter(0)):
                self.report.tell(fault)
            self.found.clear()
            if progress:
                progress(self.city, self.book.size, self.own_last)
        size = self.book.size
        if size < self.own_last:
            what = f"{self.own_last - size} of {self.own_last} signed entries are missing"
            self.report.tell(Fault(self.city, size, None, what))
        elif size > self.own_last:
            what = "no checkpoint of its own bundle signs it"
            self.report.tell(Fault(self.city, self.own_last, None, what))
        return self.book, self.ledger

    def hash(self, part: Lines) -> Iterator[tuple[int, bytes]]:
        """The root at each size within this part that a checkpoint was signed of."""
        lines = part.text.split(b"\n")
        lines.pop()
        begin, end = part.begin, part.begin + len(lines)
        for size in self.sizes[bisect_right(self.sizes, begin) : bisect_right(self.sizes, end)]:
            self.tree.extend(lines[self.tree.size - begin : size - begin])
            yield size, self.tree.root()
        self.tree.extend(lines[self.tree.size - begin :])

    def note(self, index: int, noted: Crossing | WrongEntry) -> None:
        if isinstance(noted, WrongEntry):
            self.tell(index, index, None, str(noted))
            return
        wrong = self.ledger.add(noted)
        if wrong:
            self.tell(index, index, noted.transfer, wrong)

    def compare(self, size: int, root: bytes) -> None:
        """Hold the root over the first `size` entries against the one that was signed.

        Only the first difference is told: all later roots differ because of it.
        """
        signed = self.seen[size].checkpoint.root
        if root == signed:
            self.good_size = size
            return
        if self.broken_at is not None:
            return
        self.broken_at = size
        whose = "" if size in self.own else " in another bundle"
        changed = self.first_changed(size, signed)
        if changed is not None:
            what = f"it is not the entry that was signed, in the checkpoint of {size}{whose}"
            self.tell(changed + 0.5, changed, None, what)
        else:
            what = (
                f"between here and entry {size - 1} is what was not signed: the root of {size}"
                f" entries is not that of the checkpoint{whose}"
            )
            self.tell(size - 0.5, self.good_size, None, what)

    def first_changed(self, size: int, root: bytes) -> int | None:
        """The first entry that is not what the hashes beside the entries say, if those are the ones
        that were signed."""
        try:
            if root_of(islice(self.files.leaves(), size)) != root:
                return None
        except WrongBundle:
            return None
        beside = zip(self.files.lines("entries.jsonl"), self.files.leaves(), strict=False)
        differ = (index for index, (raw, leaf) in enumerate(beside) if hash_leaf(raw) != leaf)
        return next(differ, None)

    def tell(self, place: float, index: int, transfer: str | None, what: str) -> None:
        self.found.append((place, Fault(self.city, index, transfer, what)))


# ── Messages ────────────────────────────────────────────────────────────────────────────────────


def check_messages(
    report: Report, files: CityFiles, ledger: Ledger, keys: Mapping[str, Chain]
) -> int:
    """That others said what the city posted: each settlement was accepted, each return rejected, by
    the city that it went to. Messages of cities whose key is not here are not looked at."""
    said: dict[str, str] = {}
    count = 0
    for number, raw in enumerate(files.lines("messages.jsonl")):
        try:
            message = read_message(raw, keys)
        except WrongEntry as error:
            report.tell(Fault(files.city, None, None, f"message {number + 1}: {error}"))
            continue
        if message is None:
            continue
        count += 1
        body = message["body"]
        transfer = body.get("transfer_id")
        if type(transfer) is not str or message.get("to_city") != files.city:
            continue
        sent = ledger.find_sent(transfer)
        if sent is None or sent.departure.peer != message["from_city"]:
            continue
        if body.get("kind") in ("accepted", "rejected"):
            before = said.setdefault(sent.departure.id, body["kind"])
            if before != body["kind"]:
                what = f"{message['from_city']} both accepted and rejected transfer {transfer}"
                report.tell(Fault(files.city, sent.departure.index, sent.departure.transfer, what))
    for departure, end in ledger.all_ended({city for city, chain in keys.items() if chain.keys}):
        expected = "accepted" if end.step == "settlement" else "rejected"
        if said.get(departure.id) != expected:
            what = f"{departure.peer} never said that transfer {departure.id} was {expected}"
            report.tell(Fault(files.city, end.index, end.transfer, what))
    return count
