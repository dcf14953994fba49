"""UDP for UHPPOTE controllers: events in, open commands out, and the host's sign of life."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import IPv4Address

from uhppoted import decode
from uhppoted.uhppote_async import UhppoteAsync

from copass_edge.gateway import uhppote
from copass_edge.gateway.asking import Asker
from copass_edge.gateway.lanes import Lanes
from copass_edge.gateway.settings import Controller, Uhppote
from copass_edge.gateway.swipes import AMBIGUOUS, MALFORMED, Point, Swipe, Verdict
from copass_edge.gateway.uhppote import Held
from copass_edge.gateway.wiegand import uid_of_number
from copass_tap.credentials import normalise_uid

COMMAND_SECONDS_MAX = 0.5
COMMAND_ATTEMPTS = 2
EVENTS_KEPT = 1024
REPLAY_AGE_MAX = timedelta(days=29)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Board:
    """A controller. `points`: its doors by number. `uids`: card number → UID of listed cards."""

    config: Controller
    points: Mapping[int, Point]
    uids: Mapping[int, str] = field(default_factory=dict)

    @property
    def target(self) -> tuple[int, str]:
        return self.config.serial, self.config.address

    @property
    def host(self) -> str:
        return self.config.address.rsplit(":", 1)[0]

    def uid_of(self, number: int) -> str | None:
        if self.config.uids == "listed":
            return self.uids.get(number)
        return uid_of_number(number, self.config.card_format)


class Packets(asyncio.DatagramProtocol):
    """Hands on what is as long as a packet; UDP has nobody to answer to for the rest."""

    def __init__(self, take: Callable[[bytes, str], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) == uhppote.PACKET_BYTES:
            self._take(data, addr[0])


@dataclass(slots=True)
class Host:
    """Runs until cancelled."""

    config: Uhppote
    asker: Asker
    boards: Mapping[int, Board]
    keep_control_s: float = uhppote.KEEP_CONTROL_S
    _commands: UhppoteAsync = field(default_factory=UhppoteAsync)
    _handled: OrderedDict[str, None] = field(default_factory=OrderedDict)

    async def run(self) -> None:
        host, port = self.config.listen.rsplit(":", 1)
        async with Lanes() as lanes:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: Packets(lambda packet, sender: self.take(lanes, packet, sender)),
                local_addr=(host, int(port)),
            )
            try:
                async with asyncio.TaskGroup() as tasks:
                    for board in self.boards.values():
                        tasks.create_task(self.keep_control(board))
            finally:
                transport.close()

    async def keep_control(self, board: Board) -> None:
        """Tell a controller that its host is there, three times as often as it needs."""
        is_there: bool | None = None
        listens = self.config.advertise is None
        while True:
            try:
                async with asyncio.timeout(COMMAND_SECONDS_MAX * 2):
                    if not listens and self.config.advertise is not None:
                        address, port = self.config.advertise.rsplit(":", 1)
                        await self._commands.set_listener(
                            board.target,
                            IPv4Address(address),
                            int(port),
                            timeout=COMMAND_SECONDS_MAX,
                        )
                        listens = True
                    await self._commands.set_pc_control(
                        board.target, True, timeout=COMMAND_SECONDS_MAX
                    )
                reached = True
            except Exception as error:  # whatever one controller answers, the others go on
                reached = False
                if is_there is not False:
                    log.warning(
                        "controller_away serial=%d error=%s",
                        board.config.serial,
                        type(error).__name__,
                    )
            if reached and not is_there:
                log.info("controller_joined serial=%d", board.config.serial)
            is_there = reached
            await asyncio.sleep(self.keep_control_s)

    def take(self, lanes: Lanes, packet: bytes, sender: str) -> None:
        """Sort one packet: to its door's lane, or away."""
        try:
            event = decode.event(packet)
        except ValueError:
            return
        board = self.boards.get(event.controller)
        if board is None or sender != board.host:
            if self.asker.rate.allows("stranger.uhppote", self.asker.monotonic()):
                log.warning("device_refused dialect=uhppote")
            return
        held = uhppote.read_event(event)
        point = board.points.get(event.event_door)
        if held is None or point is None:
            return
        if held.tap_id in self._handled:
            return  # a datagram that came twice opens once
        self._handled[held.tap_id] = None
        if len(self._handled) > EVENTS_KEPT:
            self._handled.popitem(last=False)
        if held.direction == "out" and point.direction == "in":
            point = replace(point, direction="out")
        arrived = asyncio.get_running_loop().time()
        lanes.add(point.name, lambda: self.answer(board, point, held, arrived))

    async def answer(self, board: Board, point: Point, held: Held, arrived: float) -> None:
        """`arrived`: by the loop's clock. It may have waited in its lane since."""
        if held.mode == "replay":
            await self.decide(board, point, held)
            return
        if self.is_late(point, held, arrived):
            return
        verdict = await self.decide(board, point, held)
        if verdict.granted and not self.is_late(point, held, arrived):
            await self.open_door(board, held.door, point.name)

    def is_late(self, point: Point, held: Held, arrived: float) -> bool:
        waited = timedelta(seconds=asyncio.get_running_loop().time() - arrived)
        if uhppote.is_fresh(held, waited):
            return False
        log.warning("event_too_old device=%s", point.name)
        return True

    async def decide(self, board: Board, point: Point, held: Held) -> Verdict:
        uid = board.uid_of(held.number)
        if uid is None or normalise_uid(uid) != uid:
            reason = AMBIGUOUS if board.config.uids == "listed" else MALFORMED
            return self.asker.refuse(point, reason)
        now = self.asker.clock()
        age = (
            min(max(held.age, timedelta(0)), REPLAY_AGE_MAX) if held.age != timedelta.max else None
        )
        at = now - age if age is not None else now
        return await self.asker.send(Swipe(point, uid, held.tap_id, at, mode=held.mode))

    async def open_door(self, board: Board, door: int, name: str) -> None:
        """Once more when no answer comes: the same person stands there."""
        for _ in range(COMMAND_ATTEMPTS):
            try:
                answer = await self._commands.open_door(
                    board.target, door, timeout=COMMAND_SECONDS_MAX
                )
            except (OSError, ValueError, TimeoutError):
                continue
            if answer is not None and answer.opened:
                log.info("door_opened device=%s", name)
                return
        log.error("door_not_opened device=%s", name)
