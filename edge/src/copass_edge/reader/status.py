"""What a board says of itself: to who stands before it, and to what watches it."""

import sqlite3
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from copass_edge.reader.config import Config
from copass_edge.reader.journal import Journal
from copass_edge.reader.papers import Papers
from copass_tap.snapshots import BadPaper

# A service that nothing was heard of for this long is away: hearing lasts 15 seconds.
ONLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Status:
    """Ages in seconds, None for never. `backlog`: taps that the service does not surely have.

    `differing`: taps that the service decided otherwise than this board had. `refused`: taps that
    it would not take. `visitors_s`, `household_s`: how long the snapshot still speaks for them.
    """

    door_id: str
    url: str
    is_online: bool
    is_turned_away: bool
    contact_age_s: int | None
    snapshot_age_s: int | None
    snapshot_cards: int | None
    snapshot_is_complete: bool | None
    visitors_s: int | None
    household_s: int | None
    is_locked_down: bool
    backlog: int
    refused: int
    differing: int
    clock_offset_s: float
    clock_is_trusted: bool
    problem: str | None

    @property
    def is_well(self) -> bool:
        return self.is_online and self.problem is None and bool(self.visitors_s)

    def fields(self) -> dict[str, object]:
        return {**asdict(self), "is_well": self.is_well}


def read_status(folder: Path, config: Config) -> Status:
    """From the files of the program, whether it runs or not. Raises sqlite3.Error."""
    journal = Journal(folder / "journal.sqlite")
    try:
        return status_of(folder, config, journal)
    finally:
        journal.close()


def status_of(folder: Path, config: Config, journal: Journal) -> Status:
    offset = float(journal.fact("clock_offset", 0.0))
    now = time.time() + offset
    papers, problem = Papers(folder, config), None
    try:
        papers.load()
    except (BadPaper, OSError) as error:
        problem = str(error)
    header = papers.held.snapshot.header if papers.held else None
    if header is None and problem is None:
        problem = "there is no snapshot: without the service nobody is let in"
    contact = journal.fact("contact_at")
    age = None if contact is None else max(0, round(now - contact))
    counts = journal.counts()
    locked = journal.fact("locked_down")
    return Status(
        door_id=config.door_id,
        url=config.url,
        is_online=age is not None and age < ONLINE_S,
        is_turned_away=bool(journal.fact("turned_away", False)),
        contact_age_s=age,
        snapshot_age_s=max(0, round(now - header.issued_at)) if header else None,
        snapshot_cards=header.cards if header else None,
        snapshot_is_complete=header.is_complete if header else None,
        visitors_s=max(0, round(header.expires_at - now)) if header else None,
        household_s=max(0, round(header.household_expires_at - now)) if header else None,
        is_locked_down=bool(locked and locked[0]),
        backlog=journal.backlog(),
        refused=counts.get("refused", 0),
        differing=counts["differing"],
        clock_offset_s=round(offset, 1),
        clock_is_trusted=bool(journal.fact("clock_trusted", True)),
        problem=problem,
    )


def is_damaged(error: sqlite3.Error) -> str:
    return f"the journal cannot be read ({error}): is the disk full or worn out?"
