"""MQTT for Fab-O-matic boards and esp-rfid: what is heard, what is said, and what is never obeyed.

The topic says which device speaks; that it is the device is for the broker to see to, by a login
for each and the rights that `copass-gateway acl` prints. Retained messages are old messages: none
is taken for a swipe, and one that lies on a topic of commands or replies, where a device would obey
it at each reconnection, is removed.
"""

import asyncio
import json
import logging
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiomqtt

from copass_edge.gateway import esprfid, fabomatic
from copass_edge.gateway.asking import Asker
from copass_edge.gateway.lanes import Lanes
from copass_edge.gateway.settings import EspRfid, Fabomatic, Mqtt, Secret
from copass_edge.gateway.swipes import Point, Swipe, tap_id_of

PAYLOAD_BYTES_MAX = 2048
INCOMING_MAX = 256
SAID_KEPT = 32
NOT_GRANTED = 128  # and beyond, in the answer to a subscription
USERS_EVERY_S = 3600.0
# Each command is a file that a small processor writes.
COMMAND_EVERY_S = 0.05

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Board:
    config: Fabomatic
    point: Point


@dataclass(frozen=True, slots=True)
class Station:
    """An esp-rfid. `known`: printed text → UID of all listed cards. `users`, `withdrawn`: printed
    texts of the cards to keep on it and to take off it."""

    config: EspRfid
    point: Point
    known: Mapping[str, str] = field(default_factory=dict)
    users: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()


@dataclass(slots=True)
class Broker:
    """Runs until cancelled, or until the connection is lost: `run` raises aiomqtt.MqttError."""

    config: Mqtt
    password: Secret
    asker: Asker
    boards: Mapping[str, Board]
    stations: Mapping[str, Station]
    users_every_s: float = USERS_EVERY_S
    _said: dict[str, deque[bytes]] = field(default_factory=dict)
    _asked: dict[str, int] = field(default_factory=dict)
    _devices: dict[str, Board | Station] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._devices = self.heard()

    async def run(self) -> None:
        tls = ssl.create_default_context(cafile=self.config.ca_file) if self.config.tls else None
        async with (
            aiomqtt.Client(
                self.config.host,
                self.config.port,
                username=self.config.username,
                password=self.password.reveal(),
                identifier=self.config.username,
                clean_session=True,  # what was said while the gateway was away is too late
                tls_context=tls,
                max_queued_incoming_messages=INCOMING_MAX,
                timeout=5,
            ) as client,
            Lanes() as lanes,
            asyncio.TaskGroup() as tasks,
        ):
            for topic in (*self._devices, *self.guarded()):
                granted = await client.subscribe(topic, qos=0)
                if any(getattr(code, "value", code) >= NOT_GRANTED for code in granted):
                    log.error("topic_not_granted topic=%s", topic)
            log.info("broker_joined")
            if any(station.users or station.withdrawn for station in self.stations.values()):
                tasks.create_task(self.keep_users(client))
            async for message in client.messages:
                self.take(client, lanes, message)

    def heard(self) -> dict[str, Board | Station]:
        """The topics on which devices speak."""
        topics: dict[str, Board | Station] = {
            fabomatic.request_topic(machine): board for machine, board in self.boards.items()
        }
        for topic, station in self.stations.items():
            topics |= dict.fromkeys(esprfid.event_topics(topic), station)
        return topics

    def guarded(self) -> list[str]:
        """The topics that devices obey, where nobody but the gateway has a say."""
        return [
            *(fabomatic.reply_topic(machine) for machine in self.boards),
            *(fabomatic.command_topic(machine) for machine in self.boards),
            *(esprfid.command_topic(topic) for topic in self.stations),
        ]

    def take(self, client: aiomqtt.Client, lanes: Lanes, message: aiomqtt.Message) -> None:
        """Sort one message: to its device's lane, or away."""
        topic = message.topic.value
        payload = message.payload if isinstance(message.payload, bytes) else b""
        device = self._devices.get(topic)
        if device is None:
            self.guard(client, lanes, topic, payload, retained=message.retain)
            return
        name = device.point.name
        if message.retain:
            self.tell(name, "retained")
            return
        if len(payload) > PAYLOAD_BYTES_MAX:
            self.tell(name, "too_large")
            return
        if isinstance(device, Station):
            lanes.add(name, lambda: self.record(device, payload))
            return
        query = fabomatic.read_query(payload)
        if query is None:
            self.tell(name, "malformed")
            return
        if query.action == "alive":
            log.debug("device_alive device=%s", name)
            return
        number = self._asked.get(name, 0) + 1
        self._asked[name] = number
        until = asyncio.get_running_loop().time() + fabomatic.REPLY_SECONDS_MAX
        lanes.add(name, lambda: self.reply(client, device, query, number, until))

    def tell(self, name: str, reason: str) -> None:
        if self.asker.may_tell(name):
            log.warning("message_refused device=%s reason=%s", name, reason)

    # --- Fab-O-matic ------------------------------------------------------------------------------

    async def reply(
        self,
        client: aiomqtt.Client,
        board: Board,
        query: fabomatic.Query,
        number: int,
        until: float,
    ) -> None:
        """Answer a board, unless it has given up on this question or asked another since."""
        name = board.point.name
        if self.is_overtaken(name, number, until):
            return
        answer: dict[str, Any] = {"request_ok": True}
        match query.action:
            case "checkuser":
                answer = fabomatic.user_reply(await self.asker.ask(board.point, query.uid))
            case "checkmachine":
                config = board.config
                answer = fabomatic.machine_reply(
                    config.label, config.machine_type, config.logoff_minutes
                )
            case "maintenance":
                answer = {"request_ok": False}  # no book of maintenance is kept here
            case _:
                log.info(
                    "use_reported device=%s action=%s seconds=%d",
                    name,
                    query.action,
                    query.seconds,
                )
        if not self.is_overtaken(name, number, until):
            await self.say(client, fabomatic.reply_topic(board.config.machine), answer)

    def is_overtaken(self, name: str, number: int, until: float) -> bool:
        late = asyncio.get_running_loop().time() > until
        if late or self._asked.get(name) != number:
            log.warning("reply_too_late device=%s", name)
            return True
        return False

    # --- esp-rfid ---------------------------------------------------------------------------------

    async def record(self, station: Station, payload: bytes) -> None:
        """What the device decided by itself, for the history: a tap of the past."""
        config, name = station.config, station.point.name
        seen = esprfid.read_event(payload)
        if seen is None:
            log.debug("device_alive device=%s", name)
            return
        uid = esprfid.resolve(
            seen.uid_text, config.uid_form, config.uid_bytes, config.uid_prefix, station.known
        )
        if uid in ("malformed", "ambiguous"):
            self.tell(name, f"{uid}_uid")
            return
        at = esprfid.occurred_at(seen, config.utc_offset_minutes, self.asker.clock())
        tap_id = tap_id_of("esprfid", config.topic, uid, seen.device_time)
        verdict = await self.asker.send(Swipe(station.point, uid, tap_id, at, mode="replay"))
        if seen.opened and verdict.decision_id is not None and not verdict.granted:
            log.warning("opened_against_decision device=%s reason=%s", name, verdict.reason)

    async def keep_users(self, client: aiomqtt.Client) -> None:
        """Keep the listed cards on the devices, each for a few hours: a gateway that is gone, or a
        card that left the list, leaves no right behind for long."""
        while True:
            for station in self.stations.values():
                await self.keep_users_of(client, station)
            await asyncio.sleep(self.users_every_s)

    async def keep_users_of(self, client: aiomqtt.Client, station: Station) -> None:
        config = station.config
        at = esprfid.device_time(self.asker.clock(), config.utc_offset_minutes)
        valid = timedelta(hours=config.users_valid_hours)
        commands = [esprfid.delete_user(config.address, text) for text in station.withdrawn]
        commands += [
            esprfid.add_user(config.address, text, device_time=at, valid=valid)
            for text in station.users
        ]
        for command in commands:
            await self.say(client, esprfid.command_topic(config.topic), command)
            await asyncio.sleep(COMMAND_EVERY_S)
        log.info("users_kept device=%s cards=%d", station.point.name, len(station.users))

    # --- what is said -----------------------------------------------------------------------------

    async def say(self, client: aiomqtt.Client, topic: str, document: Mapping[str, Any]) -> None:
        payload = json.dumps(document, separators=(",", ":")).encode()
        self._said.setdefault(topic, deque(maxlen=SAID_KEPT)).append(payload)
        await client.publish(topic, payload, qos=0, retain=False)

    def guard(
        self, client: aiomqtt.Client, lanes: Lanes, topic: str, payload: bytes, *, retained: bool
    ) -> None:
        """See to a message on a topic that a device obeys: an echo of ours, or somebody else's."""
        said = self._said.get(topic)
        if not payload:
            return
        if not retained and said is not None and payload in said:
            said.remove(payload)  # each of ours comes back once; one more is somebody else's
            return
        log.error("foreign_command topic=%s retained=%s", topic, retained)
        # It may lie there for the next reconnection: an empty retained message takes it away.
        lanes.add(f"guard {topic}", lambda: client.publish(topic, b"", qos=0, retain=True))
