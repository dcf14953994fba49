"""What this board must not forget: SQLite on its disk, every change synced before anything follows.

A tap is written when it begins, again when it is decided and before the relay moves, and stays
until the service has it in its history. So nothing that opened the door is lost when the power
goes, and nothing is sent under two names.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# `begun`: nobody knows yet what was decided. `local`: decided here, the service has to hear of it.
# `answered`: the service answered, and may still lose it. `stored`: it is in the history.
# `refused`: the service will not take it, and says why.
SCHEMA = """
CREATE TABLE IF NOT EXISTS tap (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    tap_id TEXT NOT NULL UNIQUE,
    credential TEXT,
    direction TEXT NOT NULL CHECK (direction IN ('in', 'out')),
    occurred_at REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'local', 'answered', 'stored', 'refused')),
    reason TEXT,
    granted INTEGER,
    decision_id TEXT,
    server_reason TEXT,
    sent_at REAL,
    attempted INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS tap_open ON tap (sequence) WHERE state NOT IN ('stored', 'refused');
CREATE TABLE IF NOT EXISTS withdrawn_card (name TEXT PRIMARY KEY, status TEXT, sequence INTEGER);
CREATE TABLE IF NOT EXISTS restricted_member (
    name TEXT PRIMARY KEY, status TEXT, relation TEXT, standing TEXT, sequence INTEGER
);
CREATE TABLE IF NOT EXISTS card_key (hash TEXT PRIMARY KEY, key BLOB NOT NULL, given_at REAL);
CREATE TABLE IF NOT EXISTS card_counter (hash TEXT PRIMARY KEY, counter INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS inside (
    name TEXT PRIMARY KEY, entered_at REAL NOT NULL, is_in_charge INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
# Done taps are kept a while for whoever stands before the door, without their credential.
KEPT_DONE = 2000
CARD_KEYS_MAX = 5000


@dataclass(frozen=True, slots=True)
class LoggedTap:
    """A tap that the service does not surely have. `occurred_at` in epoch seconds."""

    sequence: int
    tap_id: str
    credential: dict[str, str]
    direction: str
    occurred_at: float
    state: str
    reason: str | None
    decision_id: str | None
    sent_at: float | None


@dataclass(frozen=True, slots=True)
class Inside:
    """Who is inside as far as this door saw; a member by their short name."""

    entered_at: float
    is_in_charge: bool


class Journal:
    """One file, one connection, one thread. Raises sqlite3.Error when the disk fails."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=2.0)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(SCHEMA)

    def close(self) -> None:
        self._db.close()

    # ── Taps ────────────────────────────────────────────────────────────────────────────────────

    def begin(
        self,
        tap_id: str,
        credential: dict[str, str],
        direction: str,
        occurred_at: float,
        *,
        attempted: bool,
    ) -> None:
        """`attempted`: the service is about to be asked, and may know this tap by its time."""
        self._db.execute(
            "INSERT INTO tap (tap_id, credential, direction, occurred_at, state, attempted)"
            " VALUES (?, ?, ?, ?, 'begun', ?)",
            (tap_id, json.dumps(credential), direction, occurred_at, attempted),
        )

    def decide(
        self,
        tap_id: str,
        *,
        reason: str,
        granted: bool,
        decision_id: str | None,
        moved: tuple[str, str, float, bool] | None = None,
        counter: tuple[str, int] | None = None,
    ) -> None:
        """Keep what was decided, and what follows from it, together. `decision_id`: the service's.

        `moved`: enter or leave, the member's short name, when, in charge. `counter`: of a card.
        """
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "UPDATE tap SET state = ?, reason = ?, granted = ?, decision_id = ?"
                " WHERE tap_id = ?",
                ("answered" if decision_id else "local", reason, granted, decision_id, tap_id),
            )
            if counter is not None:
                self._db.execute(
                    "INSERT INTO card_counter (hash, counter) VALUES (?, ?)"
                    " ON CONFLICT (hash) DO UPDATE SET counter = max(counter, excluded.counter)",
                    counter,
                )
            if moved is not None:
                movement, name, at, in_charge = moved
                if movement == "leave":
                    self._db.execute("DELETE FROM inside WHERE name = ?", (name,))
                else:
                    self._db.execute(
                        "INSERT OR REPLACE INTO inside (name, entered_at, is_in_charge)"
                        " VALUES (?, ?, ?)",
                        (name, at, in_charge),
                    )

    def to_send(self, before: float, limit: int) -> list[LoggedTap]:
        """Taps that the service may not have, oldest first: decided here or interrupted, and
        those answered that were not stored since `before` (epoch seconds of the last sending)."""
        return self._taps(
            "state IN ('begun', 'local')"
            " OR (state = 'answered' AND coalesce(sent_at, occurred_at) < ?)",
            limit,
            before,
        )

    def to_confirm(self, limit: int) -> list[LoggedTap]:
        """Taps that the service answered, and whose place in the history is not known yet."""
        return self._taps("state = 'answered' AND decision_id IS NOT NULL", limit)

    def _taps(self, condition: str, limit: int, *values: Any) -> list[LoggedTap]:
        rows = self._db.execute(
            "SELECT sequence, tap_id, credential, direction, occurred_at, state, reason,"  # noqa: S608 - the conditions of this module
            f" decision_id, sent_at FROM tap WHERE {condition} ORDER BY sequence LIMIT ?",
            (*values, limit),
        ).fetchall()
        return [LoggedTap(row[0], row[1], json.loads(row[2]), *row[3:]) for row in rows]

    def answered(self, answers: Sequence[tuple[str, str, str]], at: float) -> None:
        """The service answered these taps: tap_id, decision_id, its reason."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE tap SET state = 'answered', decision_id = ?, server_reason = ?,"
                " reason = coalesce(reason, 'interrupted'), sent_at = ? WHERE tap_id = ?",
                [(decision, reason, at, tap_id) for tap_id, decision, reason in answers],
            )

    def refused(self, tap_id: str, code: str) -> None:
        self._db.execute(
            "UPDATE tap SET state = 'refused', server_reason = ?, credential = NULL"
            " WHERE tap_id = ?",
            (code, tap_id),
        )

    def stored(self, decision_ids: Sequence[str]) -> None:
        """These are in the history: their credential is not needed any more."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE tap SET state = 'stored', credential = NULL WHERE decision_id = ?",
                [(one,) for one in decision_ids],
            )
            self._db.execute(
                "DELETE FROM tap WHERE state IN ('stored', 'refused') AND sequence <="
                " (SELECT max(sequence) FROM tap) - ?",
                (KEPT_DONE,),
            )

    def shift(self, seconds: float) -> None:
        """The clock was wrong while this board was alone: set right what the service never saw."""
        self._db.execute(
            "UPDATE tap SET occurred_at = occurred_at + ? WHERE state = 'local' AND NOT attempted",
            (seconds,),
        )

    def restamp(self, tap_id: str, occurred_at: float) -> None:
        """The service did not take the time of this tap."""
        self._db.execute("UPDATE tap SET occurred_at = ? WHERE tap_id = ?", (occurred_at, tap_id))

    def backlog(self) -> int:
        """How many taps the service does not surely have."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM tap WHERE state NOT IN ('stored', 'refused')"
        ).fetchone()
        return int(count)

    def oldest_waiting(self) -> float | None:
        """When the oldest tap happened that the service does not surely have."""
        row = self._db.execute(
            "SELECT occurred_at FROM tap WHERE state NOT IN ('stored', 'refused')"
            " ORDER BY sequence LIMIT 1"
        ).fetchone()
        return row[0] if row else None

    def counts(self) -> dict[str, int]:
        """Taps by state, and `differing`: those that the service decided otherwise."""
        found = dict(self._db.execute("SELECT state, count(*) FROM tap GROUP BY state").fetchall())
        (differing,) = self._db.execute(
            "SELECT count(*) FROM tap WHERE decision_id IS NOT NULL AND server_reason <> reason"
        ).fetchone()
        return {**found, "differing": differing}

    # ── What the service withdrew ───────────────────────────────────────────────────────────────

    def withdraw(
        self,
        cards: Sequence[Sequence[str]],
        members: Sequence[Sequence[str | None]],
        facts: dict[str, Any],
        sequence: int,
    ) -> None:
        """Keep changes and how far they go, together.

        A service whose database was restored counts again from less: what was heard then ends
        with the next snapshot like everything else.
        """
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for table in ("withdrawn_card", "restricted_member"):
                self._db.execute(
                    f"UPDATE {table} SET sequence = ?1 WHERE sequence > ?1",  # noqa: S608 - just above
                    (sequence,),
                )
            self._db.executemany(
                "INSERT OR REPLACE INTO withdrawn_card VALUES (?, ?, ?)",
                [(name, status, sequence) for name, status in cards],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO restricted_member VALUES (?, ?, ?, ?, ?)",
                [(*member, sequence) for member in members],
            )
            for name, value in facts.items():
                self._set(name, value)

    def forget_withdrawn(self, up_to: int) -> None:
        """The snapshot now says these itself."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM withdrawn_card WHERE sequence <= ?", (up_to,))
            self._db.execute("DELETE FROM restricted_member WHERE sequence <= ?", (up_to,))

    def card_status(self, name: str) -> str | None:
        row = self._db.execute(
            "SELECT status FROM withdrawn_card WHERE name = ?", (name,)
        ).fetchone()
        return row[0] if row else None

    def member(self, name: str) -> tuple[str, str | None, str | None] | None:
        """Status, relation and standing of a member who may do less than the snapshot says."""
        row: tuple[str, str | None, str | None] | None = self._db.execute(
            "SELECT status, relation, standing FROM restricted_member WHERE name = ?", (name,)
        ).fetchone()
        return row

    # ── What this door saw ──────────────────────────────────────────────────────────────────────

    def inside(self, since: float) -> dict[str, Inside]:
        rows = self._db.execute(
            "SELECT name, entered_at, is_in_charge FROM inside WHERE entered_at > ?", (since,)
        ).fetchall()
        return {name: Inside(at, bool(charge)) for name, at, charge in rows}

    def counter(self, credential_hash: str) -> int | None:
        row = self._db.execute(
            "SELECT counter FROM card_counter WHERE hash = ?", (credential_hash,)
        ).fetchone()
        return row[0] if row else None

    def card_key(self, credential_hash: str) -> bytes | None:
        row = self._db.execute(
            "SELECT key FROM card_key WHERE hash = ?", (credential_hash,)
        ).fetchone()
        return row[0] if row else None

    def keep_card_key(self, credential_hash: str, key: bytes, at: float) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT OR REPLACE INTO card_key VALUES (?, ?, ?)", (credential_hash, key, at)
            )
            self._db.execute(
                "DELETE FROM card_key WHERE hash NOT IN"
                " (SELECT hash FROM card_key ORDER BY given_at DESC LIMIT ?)",
                (CARD_KEYS_MAX,),
            )

    # ── Facts of the board ──────────────────────────────────────────────────────────────────────

    def fact(self, name: str, default: Any = None) -> Any:
        row = self._db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def set_fact(self, name: str, value: Any) -> None:
        self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        self._db.execute(
            "INSERT INTO fact (name, value) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, json.dumps(value)),
        )
