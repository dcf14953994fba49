"""Everything put together: from a checked configuration to running parts."""

import asyncio
import contextlib
import hashlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn

from copass_edge.gateway import esprfid, udp
from copass_edge.gateway.asking import Asker, client
from copass_edge.gateway.broker import Board, Broker, Station
from copass_edge.gateway.rates import Rate
from copass_edge.gateway.rights import grants
from copass_edge.gateway.settings import (
    Config,
    ConfigError,
    Device,
    EspRfid,
    Secret,
    load_cards,
    read_secret,
    reader_key,
)
from copass_edge.gateway.swipes import Point, Swipes
from copass_edge.gateway.web import Bridge, Node, make_app
from copass_edge.gateway.wiegand import numbers_of

# Beyond, uvicorn answers 503, which no bridge and no Doorbot takes for a grant.
CONNECTIONS_MAX = 512
RETRY_FIRST_S = 1.0
RETRY_MAX_S = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of a gateway, secrets read, nothing started."""

    config: Config
    bridges: dict[bytes, Bridge]
    nodes: dict[int, Node]
    boards: dict[str, Board]
    stations: dict[str, Station]
    controllers: dict[int, udp.Board]

    @property
    def points(self) -> list[Point]:
        devices = (self.bridges, self.nodes, self.boards, self.stations)
        points = [one.point for group in devices for one in group.values()]
        return points + [
            point for board in self.controllers.values() for point in board.points.values()
        ]


def build(config: Config, folder: Path) -> Gateway:
    """Reads every secret and file that the configuration names, relative to `folder`. Raises
    ConfigError."""
    grants(config)  # two devices with one login or topic: not to be run
    bridges: dict[bytes, Bridge] = {}
    for one in config.fabman:
        key = hashlib.sha256(read_secret(one.token).reveal().encode()).digest()
        if key in bridges:
            raise ConfigError(f"fabman {one.name}: has the key of {bridges[key].config.name}")
        bridges[key] = Bridge(one, point_of(f"fabman.{one.name}", one))
    controllers = config.uhppote.controller if config.uhppote else ()
    try:
        return Gateway(
            config=config,
            bridges=bridges,
            nodes={
                one.node: Node(one, point_of(f"acnode.{one.node}", one), read_secret(one.key))
                for one in config.acnode
            },
            boards={
                one.machine: Board(one, point_of(f"fabomatic.{one.machine}", one))
                for one in config.fabomatic
            },
            stations={one.topic: station_of(one, folder) for one in config.esprfid},
            controllers={
                one.serial: udp.Board(
                    one,
                    {
                        door.number: point_of(f"uhppote.{one.serial}.{door.number}", door)
                        for door in one.door
                    },
                    numbers_of(load_cards(folder / one.cards).kept, one.card_format)
                    if one.cards
                    else {},
                )
                for one in controllers
            },
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def point_of(name: str, device: Device) -> Point:
    return Point(name, str(device.door_id), reader_key(device.reader_key), device.direction)


def station_of(one: EspRfid, folder: Path) -> Station:
    point = point_of(f"esprfid.{one.topic}", one)
    if one.users is None:
        return Station(one, point)
    cards = load_cards(folder / one.users)
    try:
        known = esprfid.printed_uids((*cards.kept, *cards.withdrawn), one.uid_form)
    except ValueError as error:
        raise ConfigError(f"{one.users}: {error}") from error
    return Station(
        one,
        point,
        known,
        users=tuple(esprfid.printed(uid, one.uid_form) for uid in cards.kept),
        withdrawn=tuple(esprfid.printed(uid, one.uid_form) for uid in cards.withdrawn),
    )


def make_asker(config: Config, http: httpx.AsyncClient) -> Asker:
    return Asker(http, Rate(config.limits.taps_per_second, config.limits.burst), Swipes())


def make_broker(gateway: Gateway, asker: Asker) -> Broker | None:
    """None when nothing speaks MQTT. Raises ConfigError."""
    mqtt = gateway.config.mqtt
    if mqtt is None or not (gateway.boards or gateway.stations):
        return None
    password = make_password(gateway.config)
    return Broker(mqtt, password, asker, gateway.boards, gateway.stations)


def make_password(config: Config) -> Secret:
    """The gateway's own at the broker. Raises ConfigError."""
    return read_secret(config.mqtt.password) if config.mqtt else Secret("")


async def run(gateway: Gateway, *, stop: asyncio.Event | None = None) -> None:
    """Runs until SIGTERM, SIGINT or `stop`. Raises ConfigError when it cannot begin."""
    stop = stop or asyncio.Event()
    config = gateway.config
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(listen(config)) if config.http else None
        async with client(config.access_url) as http:
            asker = make_asker(config, http)
            broker = make_broker(gateway, asker)
            parts: dict[str, Callable[[], Awaitable[None]]] = {"backlog": asker.resend}
            if server is not None:
                parts["http"] = lambda: serve(asker, gateway, server)
            if broker is not None:
                parts["mqtt"] = broker.run
            if config.uhppote is not None:
                host = udp.Host(config.uhppote, asker, gateway.controllers)
                parts["uhppote"] = host.run
            log.info("gateway_started devices=%d", len(gateway.points))
            await until_stopped(parts, stop)
            log.info("gateway_stopped")


async def until_stopped(
    parts: dict[str, Callable[[], Awaitable[None]]], stop: asyncio.Event
) -> None:
    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(forever(name, part)) for name, part in parts.items()]
    with handled_signals(loop, stop):
        await stop.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def forever(name: str, part: Callable[[], Awaitable[None]]) -> None:
    """A part that ends or fails begins again, later each time; the others go on meanwhile."""
    wait_s = RETRY_FIRST_S
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await part()
            log.warning("part_ended part=%s", name)
        except Exception as error:
            log.warning("part_failed part=%s error=%s", name, reason_of(error))
        if loop.time() - started > RETRY_MAX_S:
            wait_s = RETRY_FIRST_S
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, RETRY_MAX_S)


def reason_of(error: BaseException) -> str:
    """What failed, of a group its first; addresses at most, never a secret."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def handled_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    names = (signal.SIGTERM, signal.SIGINT)
    for name in names:
        loop.add_signal_handler(name, stop.set)
    try:
        yield
    finally:
        for name in names:
            loop.remove_signal_handler(name)


# --- HTTP ----------------------------------------------------------------------------------------


class Server(uvicorn.Server):
    """Leaves the signals to `run`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(config: Config) -> socket.socket:
    """Raises ConfigError when the address is taken."""
    if config.http is None:
        raise ConfigError("[http] is missing")
    try:
        return socket.create_server((config.http.host, config.http.port), backlog=256)
    except OSError as error:
        raise ConfigError(f"http: {error}") from error


async def serve(asker: Asker, gateway: Gateway, server: socket.socket) -> None:
    app = make_app(asker, gateway.bridges, gateway.nodes)
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=5,
        limit_concurrency=CONNECTIONS_MAX,
    )
    await Server(settings).serve(sockets=[server])
