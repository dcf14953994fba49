"""Fab-O-matic boards and esp-rfid, by the messages that they send, through a real broker."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from access_world import World, until
from gateway_broker import broker
from gateway_world import door_lines, gateway, member, taps

from copass_edge.gateway import rights
from copass_edge.gateway.settings import load_config

UNKNOWN = "0499999999AAAA"


def login(port: int, name: str) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", port, username=name, password=name[::-1])


async def next_on(client: aiomqtt.Client, topic: str) -> bytes:
    """The next message on a topic. This broker sends a new client what it keeps on topics of
    others too; no broker in use does, and a device would not ask for it."""
    async with asyncio.timeout(10):
        async for message in client.messages:
            if message.topic.value == topic:
                return bytes(message.payload)
    raise AssertionError("the connection ended")


async def next_json(client: aiomqtt.Client, topic: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(await next_on(client, topic))
    return document


async def is_kept(port: int, name: str, topic: str) -> bool:
    """Whether the broker keeps a message on a topic, for a device that connects: another message,
    sent after subscribing, comes first otherwise."""
    async with login(port, "mallory") as mallory, login(port, name) as client:
        await client.subscribe(topic)
        await mallory.publish(topic, b"{}", qos=1)
        return await next_on(client, topic) != b"{}"


async def test_boards_and_stations_speak_with_access_and_old_messages_open_nothing(
    open_world: World,
    access_url: str,
    unused_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "copass-gateway"[::-1])
    anne = await member(open_world)
    (tmp_path / "front.cards").write_text(f"{anne.uid}\n-04112233445566\n")
    text = f"""
access_url = "{access_url}"
[mqtt]
host = "127.0.0.1"
port = {unused_port}
username = "copass-gateway"
password = "env:MQTT_PASSWORD"
[[fabomatic]]
machine = "12"
label = "ENDER_1"
{door_lines(open_world)}
[[fabomatic]]
machine = "13"
label = "LASER"
{door_lines(open_world)}
[[esprfid]]
topic = "front"
address = "192.168.1.31"
uid_prefix = "04"
users = "front.cards"
{door_lines(open_world)}
"""
    (tmp_path / "gateway.toml").write_text(text)
    logins = rights.grants(load_config(tmp_path / "gateway.toml"))
    # Somebody has full rights at this broker, and left open commands lying there.
    everything = sorted({topic for reads, writes in logins.values() for topic in reads + writes})
    logins["mallory"] = (everything, everything)
    async with broker(unused_port, logins, tmp_path):
        opened = b'{"request_ok":true,"is_valid":true,"level":3,"name":"x"}'
        old = [
            ("machine/12/reply", opened),
            ("front/cmd", b'{"cmd":"opendoor","doorip":"192.168.1.31"}'),
            ("machine/12", json.dumps({"action": "checkuser", "uid": anne.uid}).encode()),
            ("front/send", event(anne.uid, "Always")),
        ]
        async with login(unused_port, "mallory") as mallory:
            for topic, payload in old:
                await mallory.publish(topic, payload, qos=1, retain=True)
        async with login(unused_port, "front") as station:
            await station.subscribe("front/cmd")
            assert (await next_json(station, "front/cmd"))["cmd"] == "opendoor"  # it does lie there
            async with gateway(tmp_path, text):
                assert await users_of(station) == {
                    ("deletuid", "4112233445566", False),
                    ("adduser", printed(anne.uid), True),
                }
                await boards_ask(open_world, unused_port, anne.uid)
                await stations_tell(open_world, station, anne.uid)
                await strangers(open_world, unused_port)
        assert "topic_not_granted" not in caplog.text
        assert not await is_kept(unused_port, "front", "front/cmd")
        assert not await is_kept(unused_port, "machine-12", "machine/12/reply")


def event(uid: str, access: str, at: int | None = None) -> bytes:
    document = {
        "type": "access",
        "time": at or int(datetime.now(UTC).timestamp()),
        "isKnown": "true",
        "access": access,
        "username": "anne",
        "uid": printed(uid),
        "hostname": "front",
    }
    return json.dumps(document).encode()


def printed(uid: str) -> str:
    return "".join(f"{byte:x}" for byte in bytes.fromhex(uid))


async def users_of(station: aiomqtt.Client) -> set[tuple[str, str, bool]]:
    """The first commands of the gateway: command, user, whether it ends within a day."""
    found = set()
    while len(found) < 2:
        payload = await next_on(station, "front/cmd")
        if not payload:
            continue  # the open command that lay there is taken away
        command = json.loads(payload)
        assert command["doorip"] == "192.168.1.31"
        until_s = int(command.get("validuntil", 0)) - datetime.now(UTC).timestamp()
        found.add((command["cmd"], command["uid"], 23 * 3600 < until_s <= 24 * 3600))
    return found


async def boards_ask(world: World, port: int, uid: str) -> None:
    """The retained question of machine 12 was not asked: the history begins here."""
    async with login(port, "machine-12") as board:
        await board.subscribe("machine/12/reply")

        async def ask(**query: Any) -> dict[str, Any]:
            await board.publish("machine/12", json.dumps(query))
            return await next_json(board, "machine/12/reply")

        answer = await ask(action="checkuser", uid=uid)
        assert answer == {"request_ok": True, "is_valid": True, "level": 1, "name": "Co-pass"}
        assert await taps(world) == [("live", "in", "network_member")]
        refused = {"request_ok": True, "is_valid": False, "level": 0, "name": ""}
        assert await ask(action="checkuser", uid=UNKNOWN) == refused
        assert await ask(action="checkuser", uid="04") == refused
        machine = await ask(action="checkmachine")
        assert (machine["allowed"], machine["name"], machine["logoff"]) == (True, "ENDER_1", 30)
        for query in (
            {"action": "startuse", "uid": uid},
            {"action": "inuse", "uid": uid, "duration": 5},
            {"action": "stopuse", "uid": uid, "duration": 9},
        ):
            assert await ask(**query) == {"request_ok": True}
        assert await ask(action="maintenance", uid=uid) == {"request_ok": False}
        # None of these is answered; the next question is.
        for noise in (b"", b"{", b"[" * 1500, b'{"action":"alive"}', b" " * 5000):
            await board.publish("machine/12", noise)
        assert (await ask(action="checkmachine"))["name"] == "ENDER_1"
        assert len(await taps(world)) == 2


async def stations_tell(world: World, station: aiomqtt.Client, uid: str) -> None:
    """What it decided by itself is history, once; what cannot be read is not."""
    before = len(await taps(world))
    at = int(datetime.now(UTC).timestamp()) - 5
    for payload in (
        event(uid, "Always", at),
        event(uid, "Always", at),
        b'{"type":"heartbeat","time":1,"uptime":2,"ip":"192.168.1.31","hostname":"front"}',
        json.dumps({"uid": "41d5a7", "access": "Always", "time": at}).encode(),
        event(UNKNOWN, "Denied", at),
    ):
        await station.publish("front/send", payload)

    async def are_told() -> bool:
        return len(await taps(world)) == before + 2

    await until(are_told)
    assert (await taps(world))[before:] == [
        ("replay", "in", "network_member"),
        ("replay", "in", "unknown_credential"),
    ]


async def strangers(world: World, port: int) -> None:
    """A board may not speak for another, and who may is noticed: the reply is not the gateway's."""
    before = len(await taps(world))
    async with login(port, "machine-12") as board, login(port, "machine-13") as other:
        await other.subscribe("machine/13/reply")
        await board.publish("machine/13", json.dumps({"action": "checkuser", "uid": UNKNOWN}))
        await board.publish("machine/13/reply", b'{"request_ok":true,"is_valid":true}')
        await board.publish("front/cmd", b'{"cmd":"opendoor","doorip":"192.168.1.31"}', retain=True)
        await other.publish("machine/13", json.dumps({"action": "checkmachine"}))
        reply = await next_on(other, "machine/13/reply")
        assert json.loads(reply)["name"] == "LASER"
    assert len(await taps(world)) == before
    with pytest.raises(aiomqtt.MqttError):
        async with aiomqtt.Client("127.0.0.1", port, username="machine-12", password="guess"):
            pass
    async with login(port, "mallory") as mallory:
        # To the letter what the gateway said, and yet not from it.
        await mallory.publish("machine/13/reply", reply, qos=1, retain=True)
    await until(lambda: is_clean(port))


async def is_clean(port: int) -> bool:
    return not await is_kept(port, "machine-13", "machine/13/reply")
