"""Verifies excerpts: each entry is in the log that its city signed, and right by itself.

What an excerpt cannot show is not asked of it: balances, floors, and what it leaves out. What of a
transfer between cities is in it must fit to whatever else is here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from copass_verify.bundle import CityFiles
from copass_verify.checkpoints import WrongCheckpoint
from copass_verify.crossings import Fault
from copass_verify.entries import Book, Crossing, WrongEntry
from copass_verify.keys import Chain
from copass_verify.merkle import WrongProof, hash_leaf, verify_inclusion
from copass_verify.notes import WrongNote
from copass_verify.proofs import WrongForm, read_proof
from copass_verify.signed import OpenSigned, Seen

# Checkpoints that were looked at already: an excerpt has one, or a few.
NOTES_MAX = 100


@dataclass(frozen=True, slots=True)
class ExcerptReport:
    """What an excerpt of a city's log shows. `first` and `last`: numbers of its entries; without a
    gap, nothing between them was left out. `size`: how many entries the city had signed by then."""

    city: str
    source: str
    entries: int
    first: int | None
    last: int | None
    without_gap: bool
    size: int
    cosigned_by: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """`checkpoints`: those that the proofs lead to; `crossings`: the parts of transfers between
    cities that are in it."""

    report: ExcerptReport
    faults: list[Fault]
    checkpoints: dict[int, Seen]
    crossings: list[Crossing]


def check_excerpt(files: CityFiles, chain: Chain, open_signed: OpenSigned) -> Excerpt:
    """Raises WrongBundle when a file is missing."""
    book = Book(files.city, whole=False)
    opened: dict[bytes, Seen] = {}
    faults: list[Fault] = []
    crossings: list[Crossing] = []
    checkpoints: dict[int, Seen] = {}
    first = last = None
    count = 0
    without_gap = True
    pairs = zip_longest(files.lines("entries.jsonl"), files.notes("proofs.jsonl"))
    for line_number, (raw, told) in enumerate(pairs, start=1):
        if raw is None or told is None:
            what = f"line {line_number} has no {'entry' if raw is None else 'proof'}"
            faults.append(Fault(files.city, None, None, what))
            break
        index: int | None = None
        try:
            proof = read_proof(told.decode())
            index = proof.index
            note = proof.note.encode()
            if note not in opened:
                if len(opened) >= NOTES_MAX:
                    opened.clear()
                opened[note] = open_signed(note)
            checkpoint = opened[note].checkpoint
            size, root = checkpoint.size, checkpoint.root
            verify_inclusion(hash_leaf(raw), index, size, root, proof.hashes)
            checkpoints[size] = opened[note]
            without_gap = without_gap and (last is None or index == last + 1)
            first, last = index if first is None else first, index
            count += 1
            book.size = index
            crossing = book.add(raw)
            if crossing:
                crossings.append(crossing)
        except (WrongForm, WrongNote, WrongCheckpoint) as error:
            faults.append(Fault(files.city, index, None, f"line {line_number}: {error}"))
        except WrongProof as error:
            what = f"it is not proven to be in the log: {error}"
            faults.append(Fault(files.city, index, None, what))
        except WrongEntry as error:
            faults.append(Fault(files.city, index, None, str(error)))
    size = max(checkpoints, default=0)
    cosigned = checkpoints[size].cosigned_by if checkpoints else ()
    keys = tuple(str(key) for key in chain.verifiers())
    report = ExcerptReport(
        files.city, str(files.source), count, first, last, without_gap and count > 0, size,
        cosigned, keys,
    )  # fmt: skip
    return Excerpt(report, faults, checkpoints, crossings)


def pair_excerpts(excerpts: Sequence[Excerpt]) -> list[Fault]:
    """What of transfers between cities is here must not contradict itself; what is not here is not
    missed."""
    shown: dict[tuple[str, str], dict[str, Crossing]] = {}
    faults = []
    for excerpt in excerpts:
        city = excerpt.report.city
        for crossing in excerpt.crossings:
            steps = shown.setdefault((city, crossing.id), {})
            before = steps.setdefault(crossing.step, crossing)
            if before.index != crossing.index:
                what = f"transfer {crossing.id} has a {crossing.step} a second time"
                faults.append(Fault(city, crossing.index, crossing.transfer, what))
    for (city, crossing_id), steps in shown.items():
        ends = [steps[step] for step in ("settlement", "return") if step in steps]
        if len(ends) == 2:
            what = f"transfer {crossing_id} is both settled and returned"
            faults.append(Fault(city, ends[1].index, ends[1].transfer, what))
        arrival = steps.get("arrival")
        if arrival is None:
            continue
        for sent in shown.get((arrival.peer, crossing_id), {}).values():
            what = ""
            if (sent.peer, sent.minutes) != (city, arrival.minutes):
                what = (
                    f"transfer {crossing_id} departed from {arrival.peer} as {sent.minutes} minutes"
                    f" to {sent.peer}"
                )
            elif sent.step == "return":
                what = f"transfer {crossing_id} arrived, and went back to its payer too"
            if what:
                faults.append(Fault(city, arrival.index, arrival.transfer, what))
                break
    return faults
