"""A UHPPOTE controller, by the bytes of its packets over UDP, in front of a real access.

The controller here is written from the protocol: 64 bytes, 0x17, a function, the serial number
little-endian; dates in decimal digits.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from access_world import World, until
from gateway_world import door_lines, gateway, member, taps

from copass import servers
from copass_edge.gateway import udp
from copass_edge.gateway.asking import Asker
from copass_edge.gateway.rates import Rate
from copass_edge.gateway.settings import Controller, Uhppote
from copass_edge.gateway.swipes import Swipes

SERIAL = 405419896
UID, UNKNOWN = "64E4205A", "64E4205B"
OPEN, SET_LISTENER, PC_CONTROL, EVENT = 0x40, 0x90, 0xA0, 0x20
PC_CONTROL_MAGIC = 0x55AAAA55


class Box(asyncio.DatagramProtocol):
    """A controller with doors, which obeys any host and tells its listener of swipes."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        self.commands: list[bytes] = []
        self.listener: tuple[str, int] | None = None
        self.index = 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # a datagram endpoint's
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert (len(data), data[0], int.from_bytes(data[4:8], "little")) == (64, 0x17, SERIAL)
        self.commands.append(data)
        if data[1] == SET_LISTENER:
            host = ".".join(str(part) for part in data[8:12])
            self.listener = (host, int.from_bytes(data[12:14], "little"))
        answer = bytearray(64)
        answer[:8], answer[8] = data[:8], 1
        self.transport.sendto(bytes(answer), addr)

    def count(self, function: int) -> int:
        return sum(command[1] == function for command in self.commands)

    def swipe(self, uid: str, **changes: int) -> bytes:
        """Tell the listener of a card; the packet."""
        self.index += 1
        now = datetime.now().replace(microsecond=0)  # noqa: DTZ005 - a controller has no zone
        seen = now - timedelta(seconds=changes.get("seconds_ago", 0))
        packet = bytearray(64)
        packet[0:2] = 0x17, EVENT
        packet[4:8] = changes.get("serial", SERIAL).to_bytes(4, "little")
        packet[8:12] = self.index.to_bytes(4, "little")
        packet[12:16] = 1, changes.get("granted", 0), changes.get("door", 1), 1
        packet[15] = changes.get("direction", 1)
        packet[16:20] = int(uid, 16).to_bytes(4, "little")
        packet[20:27] = bytes.fromhex(seen.strftime("%Y%m%d%H%M%S"))
        packet[27] = changes.get("reason", 5)
        packet[37:40] = bytes.fromhex(now.strftime("%H%M%S"))
        packet[51:54] = bytes.fromhex(now.strftime("%y%m%d"))
        self.send(bytes(packet))
        return bytes(packet)

    def send(self, packet: bytes) -> None:
        assert self.listener is not None
        self.transport.sendto(packet, self.listener)


@asynccontextmanager
async def controller() -> AsyncIterator[Box]:
    loop = asyncio.get_running_loop()
    transport, box = await loop.create_datagram_endpoint(
        lambda: Box("127.0.0.1", 0), local_addr=("127.0.0.1", 0)
    )
    box.address, box.port = transport.get_extra_info("sockname")
    try:
        yield box
    finally:
        transport.close()


def send_from(address: str, packet: bytes, to: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((address, 0))
        sender.sendto(packet, to)


async def test_the_controller_asks_its_host_and_the_host_asks_access(
    open_world: World, access_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = servers.unused_port()
    await member(open_world, UID)
    async with controller() as box:
        text = f"""
access_url = "{access_url}"
[limits]
burst = 50
[uhppote]
listen = "127.0.0.1:{port}"
advertise = "127.0.0.1:{port}"
[[uhppote.controller]]
serial = {SERIAL}
address = "{box.address}:{box.port}"
[[uhppote.controller.door]]
number = 1
{door_lines(open_world)}
"""

        async def are_opened(count: int) -> bool:
            return box.count(OPEN) >= count

        async def is_host() -> bool:
            return box.count(PC_CONTROL) > 0

        async with gateway(tmp_path, text):
            await until(is_host)
            sign = next(one for one in box.commands if one[1] == PC_CONTROL)
            assert int.from_bytes(sign[8:12], "little") == PC_CONTROL_MAGIC
            assert sign[12] == 1

            granted = box.swipe(UID)
            await until(lambda: are_opened(1))
            assert next(one for one in box.commands if one[1] == OPEN)[8] == 1
            assert await taps(open_world) == [("live", "in", "network_member")]

            # What must not open: a datagram that came twice, an old event, other cards, other
            # doors and senders, refusals that were set on the controller, what is no packet.
            box.send(granted)
            stale = box.swipe(UID, seconds_ago=30)
            box.swipe(UNKNOWN)
            box.swipe("00000000")
            box.swipe("88E4205A")
            box.swipe(UID, door=2)
            box.swipe(UID, reason=12)
            box.swipe(UID, serial=SERIAL + 1)
            box.send(granted[:63])
            box.send(granted + b"\0")
            box.send(b"\x17\x20" + b"\xff" * 62)
            assert box.listener is not None
            forged = bytearray(stale)
            forged[8:12] = (9999).to_bytes(4, "little")
            send_from("127.0.0.2", bytes(forged[:20] + granted[20:]), box.listener)
            # What the controller decided by itself is history; on the way out it opens.
            box.swipe(UID, granted=1, reason=1)
            box.swipe(UNKNOWN, direction=2)
            await until(lambda: are_opened(2))
            assert box.count(OPEN) == 2
            assert (await taps(open_world))[1:] == [
                ("live", "in", "unknown_credential"),
                ("replay", "in", "network_member"),
                ("live", "out", "exit"),
            ]
            # Not even asked about: access would answer that this tap_id was used.
            assert "tap_not_decided" not in caplog.text


async def test_the_host_gives_its_sign_of_life_again_and_again() -> None:
    """A controller that it could not reach at first as well."""
    port = servers.unused_port()
    address = f"127.0.0.1:{servers.unused_port()}"
    door = {"number": 1, "door_id": "11111111-1111-4111-8111-111111111111"}
    one = Controller.model_validate(
        {"serial": SERIAL, "address": address, "door": [{**door, "reader_key": "env:NONE"}]}
    )
    async with httpx.AsyncClient() as http, controller_at(address) as box:
        host = udp.Host(
            Uhppote(listen=f"127.0.0.1:{port}", controller=(one,)),
            Asker(http, Rate(5, 10), Swipes()),
            {SERIAL: udp.Board(one, {})},
            keep_control_s=0.02,
        )
        running = asyncio.create_task(host.run())

        async def is_kept() -> bool:
            return box.count(PC_CONTROL) >= 3

        await until(is_kept)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert udp.uhppote.KEEP_CONTROL_S < 30 / 2  # one packet may be lost


@asynccontextmanager
async def controller_at(address: str) -> AsyncIterator[Box]:
    """A controller that is switched on a moment later."""
    host, port = address.rsplit(":")
    box = Box(host, int(port))

    async def switch_on() -> asyncio.DatagramTransport:
        await asyncio.sleep(0.05)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: box, local_addr=(host, int(port))
        )
        return transport

    switching = asyncio.create_task(switch_on())
    try:
        yield box
    finally:
        (await switching).close()
