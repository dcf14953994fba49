"""The reader program: an input, a relay, the service, and what to do without it.

A tap takes these steps, and the door opens after the last: it is written down (`begun`), the
service is asked, for at most `live_limit_ms` and not at all while it is known to be away, else the
board decides by its snapshot; the decision is written down; the relay moves. Beside that run, each
by itself: hearing of changes, fetching the snapshot, sending the log.
"""

import asyncio
import json
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copass_edge.reader.alone import decide_alone, known_card
from copass_edge.reader.clock import Clock
from copass_edge.reader.config import Config
from copass_edge.reader.credentials import Named, Reading, name_of, read_text
from copass_edge.reader.devices import (
    UNLOCK_MS_MAX,
    Input,
    Relay,
    make_input,
    make_relay,
    read_for_ever,
)
from copass_edge.reader.health import health_of
from copass_edge.reader.journal import Journal, LoggedTap
from copass_edge.reader.papers import CARD_KEY, Papers, unseal
from copass_edge.reader.service import (
    BATCH_MAX,
    Away,
    Refused,
    Service,
    TapAnswer,
    new_tap_id,
    wire_tap,
)
from copass_tap.decision import IN_CHARGE, Direction
from copass_tap.snapshots import CHANGES, BadPaper, read_paper

# Shorter than a proxy waits for an answer.
HEARING_WAIT_S = 15
PROBE_FIRST_S, PROBE_MAX_S = 0.5, 30.0
SNAPSHOT_EVERY_S = 300.0
SNAPSHOT_RETRY_S = 15.0
SENDING_PAUSE_S = 2.0
# Later than the service takes to put a tap into its history, so that none is sent twice in vain.
RESEND_AFTER_S = 60.0
REMEMBER_TIME_S = 60.0
SHIFT_MIN_S = 2.0
REPORT_EVERY_S = 30.0
LEARN_KEYS_FOR = ("resident", "staff")

log = logging.getLogger("copass.reader")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a tap. `source`: `live`, `alone`, or `none` for what is no credential."""

    tap_id: str | None
    granted: bool
    reason: str
    source: str
    seconds: float
    unlock_ms: int = 0


class Program:
    """`run` until cancelled. Everything that fails is logged, and tried again later, less often."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        *,
        device: Input | None = None,
        exit_device: Input | None = None,
        relay: Relay | None = None,
        after_written: Callable[[], None] = lambda: None,
    ) -> None:
        """`after_written` is called between the last write and the relay (for tests of crashes)."""
        self.config = config
        self.journal = Journal(folder / "journal.sqlite")
        self.clock = Clock(self.journal.fact("time", 0.0))
        self.papers = Papers(folder, config)
        self.service = Service(config, self.clock)
        self.device = device or make_input(config.input)
        self.exit_device = exit_device or (
            make_input(config.exit_input) if config.exit_input else None
        )
        self.relay = relay or make_relay(config.relay)
        self.after_written = after_written
        self.is_online = False
        self.is_turned_away = bool(self.journal.fact("turned_away", False))
        self._went_away = asyncio.Event()
        self._snapshot_wanted = asyncio.Event()
        self._something_to_send = asyncio.Event()
        self._offset_s = self.clock.offset_s
        self._in_hand: set[str] = set()
        self._not_stored: set[str] = set()
        self._open_until = 0.0
        self._opening: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._load_papers()

    def _load_papers(self) -> None:
        try:
            self.papers.load()
        except (BadPaper, OSError) as error:
            log.error("the snapshot on this disk cannot be used: %s", error)
        held = self.papers.held
        if held and held.snapshot.header.issued_at < self.journal.fact("snapshot_issued_at", 0):
            log.error("the snapshot on this disk is older than the last one: it is not used")
            self.papers.held = None

    async def run(self) -> None:
        tasks = [self._hear(), self._fetch(), self._send(), self._remember_time(), self._report()]
        tasks.append(self._read(self.device, self._direction))
        if self.exit_device is not None:
            tasks.append(self._read(self.exit_device, "out"))
        try:
            async with asyncio.TaskGroup() as group:
                for task in tasks:
                    group.create_task(task)
        finally:
            self.relay.close()
            await self.service.close()
            self.journal.set_fact("time", self.clock.now())
            self.journal.close()

    @property
    def _direction(self) -> Direction:
        return "out" if self.config.direction == "out" else "in"

    async def _read(self, device: Input, direction: Direction) -> None:
        async def handle(text: str) -> None:
            outcome = await self.tap(text, direction)
            device.show(outcome.reason, granted=outcome.granted)

        await read_for_ever(device, handle, lambda text: log.error("input: %s", text))
        await asyncio.Event().wait()  # an input that ended does not end the rest

    # ── A tap ───────────────────────────────────────────────────────────────────────────────────

    async def tap(self, text: str, direction: Direction) -> Outcome:
        """Answer what was held to the door, and open it or not. Never raises, whatever was read."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        # The way out waits for nobody: whatever is pressed or held there opens.
        is_out = direction == "out"
        reading = read_text(text)
        if reading is None:
            if is_out:
                self._open(self._unlock_ms)
            return Outcome(None, is_out, "unreadable", "none", loop.time() - started)
        tap_id = new_tap_id()
        self._in_hand.add(tap_id)
        try:
            return await self._answer(reading, tap_id, direction, started)
        except Exception:  # one card must not end the program for all others
            log.exception("a tap failed")
            return Outcome(tap_id, is_out, "failed", "none", loop.time() - started)
        finally:
            self._in_hand.discard(tap_id)

    async def _answer(
        self, reading: Reading, tap_id: str, direction: Direction, started: float
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        now = self.clock.now()
        asks = self.is_online
        is_written = self._write(
            lambda: self.journal.begin(tap_id, reading.wire, direction, now, attempted=asks)
        )
        if direction == "out":
            self._open(self._unlock_ms)
        elif not is_written:  # what cannot be recorded does not happen
            return Outcome(tap_id, False, "disk_failed", "none", loop.time() - started)
        named = self._name(reading)
        answer = None
        if asks and is_written:
            limit_s = self.config.live_limit_ms / 1000 - (loop.time() - started)
            answer = await self._ask(tap_id, reading, direction, now, limit_s)
        outcome = (
            self._follow(answer, tap_id, named, now)
            if answer is not None
            else self._decide(reading, named, tap_id, direction)
        )
        self.after_written()
        if outcome.granted and direction == "in":
            self._open(outcome.unlock_ms)
        if answer is not None and outcome.granted and reading.message is not None:
            self._start(self._learn_key(reading, outcome.reason))
        if outcome.source == "alone":
            self._something_to_send.set()
        seconds = loop.time() - started
        log.info("%s %s %s %.0f ms", outcome.source, outcome.granted, outcome.reason, seconds * 1e3)
        return Outcome(
            tap_id, outcome.granted, outcome.reason, outcome.source, seconds, outcome.unlock_ms
        )

    def _write(self, write: Callable[[], None]) -> bool:
        """Whether it is on the disk now."""
        try:
            write()
        except sqlite3.Error as error:
            log.error("the disk of this board failed: %s", error)
            return False
        return True

    def _name(self, reading: Reading) -> Named | None:
        held = self.papers.held
        if held is None or held.secrets is None:
            return None
        return name_of(reading, held.secrets, self.journal.card_key)

    @property
    def _unlock_ms(self) -> int:
        return self.papers.held.door.unlock_ms if self.papers.held else 3000

    async def _ask(
        self, tap_id: str, reading: Reading, direction: Direction, now: float, limit_s: float
    ) -> TapAnswer | None:
        """The service's answer within the limit; None: decide alone. An attempt that was given up
        may still arrive: the log sends the same tap_id, and the service knows it then."""
        try:
            async with asyncio.timeout(max(0.0, limit_s)):
                answer = await self.service.tap(
                    wire_tap(tap_id, self.config.door_id, reading.wire, direction, now, "live")
                )
        except (TimeoutError, Away) as error:
            self._lose(f"{type(error).__name__} {error}")
            return None
        except Refused as error:
            log.error("the service refused a tap: %s", error)
            if error.is_about_reader:
                self._turn_away(True)
            else:  # it may be the time, which its answer has just set right
                self._write(lambda: self.journal.restamp(tap_id, self.clock.now()))
            return None
        if self.clock.now() > answer.expires_at and self.clock.is_trusted:
            self._lose("an answer that was too old")
            return None
        return answer

    def _follow(self, answer: TapAnswer, tap_id: str, named: Named | None, now: float) -> Outcome:
        """Do what the service said, and note for later what it means for who is inside."""
        moved = None
        held = self.papers.held
        if answer.granted and named is not None and held is not None:
            _, member = known_card(held, self.journal, named)
            if member is not None:
                movement = "leave" if answer.reason == "exit" else "enter"
                moved = (movement, member.member_id, now, member.relation in IN_CHARGE)
        counter = (named.hash, named.counter) if named and named.counter is not None else None
        written = self._write(
            lambda: self.journal.decide(
                tap_id,
                reason=answer.reason,
                granted=answer.granted,
                decision_id=answer.decision_id,
                moved=moved,
                # A message that was not believed must not use up those that the card will make.
                counter=counter if answer.granted else None,
            )
        )
        granted = answer.granted and (written or answer.reason == "exit")
        return Outcome(tap_id, granted, answer.reason, "live", 0.0, answer.unlock_ms)

    def _decide(
        self, reading: Reading, named: Named | None, tap_id: str, direction: Direction
    ) -> Outcome:
        """Decide by the snapshot."""
        now = self.clock.now_utc()
        alone = decide_alone(
            self.papers.held,
            self.journal,
            reading,
            named,
            tap_id=tap_id,
            door_id=self.config.door_id,
            direction=direction,
            now=now,
            may_trust_visitors=self.clock.is_trusted and not self.is_turned_away,
            is_locked_down=self._is_locked_down(),
        )
        decision = alone.decision
        moved = None
        if decision.granted and alone.member is not None and decision.movement != "none":
            movement = "leave" if decision.movement == "leave" else "enter"
            moved = (movement, alone.member, now.timestamp(), alone.is_in_charge)
        counter = (named.hash, named.counter) if named and named.counter is not None else None
        written = self._write(
            lambda: self.journal.decide(
                tap_id,
                reason=decision.reason,
                granted=decision.granted,
                decision_id=None,
                moved=moved,
                counter=counter if decision.granted else None,
            )
        )
        granted = decision.granted and (written or direction == "out")
        return Outcome(tap_id, granted, decision.reason, "alone", 0.0, self._unlock_ms)

    def _is_locked_down(self) -> bool:
        """By the newest that was heard: a snapshot or the changes."""
        held = self.papers.held
        heard = self.journal.fact("locked_down")
        if heard and (held is None or heard[1] >= held.snapshot.header.issued_at):
            return bool(heard[0])
        return held.snapshot.header.is_locked_down if held else False

    def _open(self, milliseconds: int) -> None:
        """Open, or keep open for longer; returns at once."""
        loop = asyncio.get_running_loop()
        milliseconds = max(0, min(milliseconds, UNLOCK_MS_MAX))
        self._open_until = max(self._open_until, loop.time() + milliseconds / 1000)
        if milliseconds and (self._opening is None or self._opening.done()):
            self._opening = asyncio.create_task(self._keep_open())
            self._background.add(self._opening)
            self._opening.add_done_callback(self._background.discard)

    async def _keep_open(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._open_until - loop.time()) > 0:
            await self.relay.open(max(1, round(left * 1000)))

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _learn_key(self, reading: Reading, reason: str) -> None:
        """Ask for the key of a card that was let in, so that it can be checked alone later."""
        wire = reading.wire
        try:
            name, sealed = await self.service.card_key(
                self.config.door_id, wire["picc_data"], wire["mac"]
            )
            key = unseal(self.config.secret, sealed, CARD_KEY)
        except (Away, Refused, ValueError) as error:
            if reason in LEARN_KEYS_FOR:
                log.info("no key of a card: %s", error)
            return
        self._write(lambda: self.journal.keep_card_key(name, key, self.clock.now()))

    # ── Online and offline ──────────────────────────────────────────────────────────────────────

    def _lose(self, why: str) -> None:
        if self.is_online:
            log.warning("the service is away, deciding alone: %s", why)
        self.is_online = False
        self._went_away.set()

    def _find(self) -> None:
        """The service answered this reader as its own."""
        if not self.is_online:
            log.info("the service answers")
            self._something_to_send.set()
            self._snapshot_wanted.set()
        shift = self.clock.offset_s - self._offset_s
        if abs(shift) > SHIFT_MIN_S:
            log.warning("the clock was %.0f s wrong", -shift)
            self.journal.shift(shift)
        self._offset_s = self.clock.offset_s
        self.is_online = True
        self._went_away.clear()
        self._turn_away(False)
        self.journal.set_fact("contact_at", self.clock.now())
        self._note_clock()

    def _turn_away(self, away: bool) -> None:
        if away:
            self._lose("the service does not want this reader")
        if away != self.is_turned_away:
            self.is_turned_away = away
            self.journal.set_fact("turned_away", away)

    async def _hear(self) -> None:
        """Hear of changes for as long as the service is there; look for it when it is not."""
        pause = PROBE_FIRST_S
        while True:
            try:
                await self._hear_once(HEARING_WAIT_S if self.is_online else 0)
                pause = PROBE_FIRST_S
                continue
            except Away as error:
                self._lose(str(error))
            except Refused as error:
                log.error("the service refuses this reader: %s", error)
                if error.is_about_reader:
                    self._turn_away(True)
            except (BadPaper, sqlite3.Error) as error:
                log.error("changes that cannot be used: %s", error)
                self._lose("changes that cannot be used")
            # Not all readers at once when the service is back.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(pause * 2, PROBE_MAX_S)

    async def _hear_once(self, wait_s: int) -> None:
        """One look at the changes. Raises Away also when a tap found the service away meanwhile:
        a connection through which nothing comes would say so much later."""
        held = self.papers.held
        after = self.journal.fact("changes_sequence")
        if after is None:
            after = held.snapshot.header.sequence if held else 0
        asking = asyncio.create_task(self.service.changes(self.config.door_id, after, wait_s))
        losing = asyncio.create_task(self._went_away.wait()) if self.is_online else None
        try:
            await asyncio.wait(
                [asking, *([losing] if losing else [])], return_when=asyncio.FIRST_COMPLETED
            )
            if not asking.done():
                raise Away("a tap was not answered in time")
            raw = asking.result()
        finally:
            asking.cancel()
            if losing:
                losing.cancel()
            await asyncio.gather(asking, *([losing] if losing else []), return_exceptions=True)
        self._apply(raw)
        self._find()

    def _apply(self, raw: bytes) -> None:
        """Take in what was withdrawn, durably. Raises BadPaper for what is not signed, not this
        door's, or older than what was heard before."""
        try:
            paper = json.loads(read_paper(CHANGES, raw, self.papers.key))
            if (paper["door_id"], paper["reader_id"]) != (
                self.config.door_id,
                self.config.reader_id,
            ):
                raise BadPaper("these are the changes of another door or reader")
            issued_at, sequence = int(paper["issued_at"]), int(paper["sequence"])
            if issued_at < self.journal.fact("changes_issued_at", 0):
                raise BadPaper("these changes are older than what was heard before")
            cards = [(str(name), str(status)) for name, status in paper["cards"]]
            members = [tuple(member) for member in paper["members"]]
            if any(len(member) != 4 for member in members):
                raise BadPaper("members have another shape")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise BadPaper(f"no changes: {error}") from None
        self.journal.withdraw(
            cards,
            members,
            {
                "changes_sequence": sequence,
                "changes_issued_at": issued_at,
                "locked_down": [bool(paper["is_locked_down"]), issued_at],
            },
            sequence,
        )
        held = self.papers.held
        if held is None or (
            sequence > held.snapshot.header.sequence
            or paper["policy_version"] != held.snapshot.header.policy_version
        ):
            self._snapshot_wanted.set()

    async def _fetch(self) -> None:
        """Keep the snapshot new: when something changed, and every few minutes anyway."""
        pause = 0.0
        while True:
            try:
                async with asyncio.timeout(SNAPSHOT_EVERY_S):
                    await self._snapshot_wanted.wait()
            except TimeoutError:
                pass
            self._snapshot_wanted.clear()
            if not self.is_online:
                continue
            try:
                pause = await self.fetch_snapshot()
            except (Away, Refused, BadPaper, OSError, sqlite3.Error) as error:
                log.warning("no new snapshot: %s", error)
                pause = SNAPSHOT_RETRY_S
                self._snapshot_wanted.set()
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311 - no secret

    async def fetch_snapshot(self) -> float:
        """Fetch the snapshot if it is another. Returns the seconds until the next may be asked
        for. Raises Away, Refused, BadPaper, OSError, sqlite3.Error."""
        held = self.papers.held
        found = await self.service.snapshot(self.config.door_id, held.etag if held else "")
        if found is None:
            return SNAPSHOT_RETRY_S
        raw, etag, pause = found
        new = self.papers.install(raw, etag, self.clock.now())
        header = new.snapshot.header
        self.journal.set_fact("snapshot_issued_at", header.issued_at)
        self.journal.forget_withdrawn(header.sequence)
        log.info("snapshot of %d cards, %d", header.cards, header.sequence)
        return pause

    # ── The log ─────────────────────────────────────────────────────────────────────────────────

    async def _send(self) -> None:
        """Send what the service may not have, in order; forget what is in its history."""
        while True:
            try:
                async with asyncio.timeout(SENDING_PAUSE_S):
                    await self._something_to_send.wait()
            except TimeoutError:
                pass
            self._something_to_send.clear()
            if not self.is_online:
                continue
            try:
                # First ask, then send: what is in the history already is not sent again, however
                # long ago the service answered it.
                await self.confirm_some()
                while await self.send_some():
                    pass
                await self.confirm_some()
            except Away as error:
                log.info("the log waits: %s", error)
            except Refused as error:
                log.error("the service refuses the log: %s", error)
                if error.is_about_reader:
                    self._turn_away(True)
            except sqlite3.Error as error:
                log.error("the disk of this board failed: %s", error)

    async def send_some(self) -> bool:
        """Send the oldest taps of the log; whether there may be more. Raises Away, Refused."""
        taps = self.journal.to_send(self.clock.now() - RESEND_AFTER_S, BATCH_MAX)
        # Not one that is being decided at this moment, nor one that may be in the history.
        taps = [
            tap
            for tap in taps
            if tap.tap_id not in self._in_hand
            and (tap.state != "answered" or tap.tap_id in self._not_stored)
        ]
        if not taps:
            return False
        bodies = [
            wire_tap(
                tap.tap_id, self.config.door_id, tap.credential, tap.direction, tap.occurred_at,
                "replay",
            )
            for tap in taps
        ]  # fmt: skip
        answered: list[tuple[str, str, str]] = []
        for tap, (_, answer) in zip(taps, await self.service.send(bodies), strict=True):
            if isinstance(answer, TapAnswer):
                answered.append((tap.tap_id, answer.decision_id, answer.reason))
            else:
                log.error("the service refused a tap of the log: %s", answer)
                self.journal.refused(tap.tap_id, answer.code)
        self.journal.answered(answered, self.clock.now())
        return len(taps) == BATCH_MAX

    async def confirm_some(self) -> None:
        """Ask which answered taps are in the history. Raises Away, Refused."""
        waiting: Sequence[LoggedTap] = self.journal.to_confirm(BATCH_MAX)
        ids = [tap.decision_id for tap in waiting if tap.decision_id is not None]
        if ids:
            stored = set(await self.service.stored(ids))
            self.journal.stored(sorted(stored))
            self._not_stored = {tap.tap_id for tap in waiting if tap.decision_id not in stored}

    async def _report(self) -> None:
        """Tell the service now and then how this board is."""
        while True:
            if self.is_online:
                try:
                    await self.service.report(health_of(self.journal, self.papers.held, self.clock))
                except (Away, Refused) as error:
                    log.info("the service was not told how this board is: %s", error)
            await asyncio.sleep(REPORT_EVERY_S if self.is_online else 1.0)

    def _note_clock(self) -> None:
        self.journal.set_fact("time", self.clock.now())
        self.journal.set_fact("clock_offset", self.clock.now() - time.time())
        self.journal.set_fact("clock_trusted", self.clock.is_trusted)

    async def _remember_time(self) -> None:
        """So that a board whose clock stops with the power knows that it did."""
        while True:
            self._write(self._note_clock)
            await asyncio.sleep(REMEMBER_TIME_S)
