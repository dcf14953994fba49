"""Fabman bridges and ACNodes, by the bytes that they send, in front of a real access."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from access_world import SECRET, World
from gateway_world import door_lines, gateway, member, taps

from copass import servers

UNKNOWN = "0499999999AAAA"


async def http(port: int, text: str, *headers: str, body: bytes = b"") -> tuple[int, bytes, bytes]:
    """Status, head and body of one exchange, as the bytes were; the head in lower case."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{text} HTTP/1.1", "Host: gateway", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    raw = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    head, _, rest = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), rest


async def test_bridges_and_nodes_get_the_decisions_of_access(
    open_world: World,
    access_url: str,
    unused_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", logger="copass_edge")
    monkeypatch.setenv("BRIDGE_KEY", "bridge-key")
    monkeypatch.setenv("NODE_KEY", "node-key")
    door = door_lines(open_world)
    text = f"""
access_url = "{access_url}"
[http]
port = {unused_port}
[[fabman]]
name = "laser"
kind = "machine"
token = "env:BRIDGE_KEY"
{door}
[[acnode]]
node = 7
key = "env:NODE_KEY"
{door}
[[acnode]]
node = 8
key = "env:BRIDGE_KEY"
{door}
"""
    anne = await member(open_world)
    staff = await member(open_world, places={open_world.place_id: "staff"})
    async with gateway(tmp_path, text):
        await bridge_says(open_world, unused_port, anne.uid)
        await node_says(open_world, unused_port, anne.uid, staff.uid)
    assert "tap_answered" in caplog.text
    for kept_quiet in (anne.uid, staff.uid, UNKNOWN, SECRET, "bridge-key", "node-key"):
        assert kept_quiet not in caplog.text


async def in_parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def bridge_says(world: World, port: int, uid: str) -> None:
    base = f"http://127.0.0.1:{port}/api/v1/bridge"
    key = {"authorization": "Bearer bridge-key"}
    question: dict[str, Any] = {"keys": [{"type": "nfca", "token": uid}], "configVersion": 0}
    async with httpx.AsyncClient(headers=key) as bridge:
        # Sent twice, as by a device that did not hear the first answer: one swipe, one tap.
        first, again = await asyncio.gather(
            bridge.post(f"{base}/access", json=question),
            bridge.post(f"{base}/access/", json=question),
        )
        assert first.json() == again.json()
        assert first.json()["type"] == "allowed"
        assert first.json()["messages"] == ["Bienvenue.", "Welcome."]
        assert await taps(world) == [("live", "in", "network_member")]

        beat = await bridge.post(f"{base}/heartbeat", json={"configVersion": 0})
        assert beat.status_code == 200
        session = {"id": first.json()["sessionId"]}
        stop = {"stopType": "normal", "currentSession": session}
        assert (await bridge.post(f"{base}/stop", json=stop)).status_code == 204

        unknown: dict[str, Any] = {"keys": [{"type": "nfca", "token": UNKNOWN}], "configVersion": 0}
        answer = await bridge.post(f"{base}/access", json=unknown)
        assert (answer.status_code, answer.json()["type"]) == (200, "denied")
        for content in (
            b"",
            b"{",
            b'{"keys":[]}',
            b'{"keys":[{"type":"nfca","token":"04"}]}',
            b'{"keys":[{"type":"em4102","token":"04A2B1C3D4E5F6"}]}',
            b'{"emailAddress":"anne@example.org","configVersion":0}',
            b"[" * 4000,
        ):
            answer = await bridge.post(f"{base}/access", content=content)
            assert answer.json()["type"] == "denied", content[:20]
        two = {"keys": [*question["keys"], *unknown["keys"]], "configVersion": 0}
        assert (await bridge.post(f"{base}/access", json=two)).json()["type"] == "denied"
        valid = json.dumps(question).encode()
        for huge in (b" " * 5000 + valid, in_parts(b" " * 5000, valid)):
            answer = await bridge.post(f"{base}/access", content=huge)
            assert (answer.status_code, answer.json()["type"]) == (413, "denied")
        assert len(await taps(world)) == 2

        for wrong in ("Bearer node-key", "Bearer", "Basic bridge-key", ""):
            answer = await bridge.post(
                f"{base}/access", json=question, headers={"authorization": wrong}
            )
            assert (answer.status_code, answer.json()["type"]) == (401, "denied")
        assert len(await taps(world)) == 2


async def node_says(world: World, port: int, uid: str, staff_uid: str) -> None:
    key = "X-AC-Key: node-key"
    status, head, body = await http(port, f"GET /7/card/{uid}", key)
    assert (status, body) == (200, b"1\n")
    assert b"content-length: 2" in head
    assert (await http(port, f"GET /7/card/{staff_uid}", key))[2] == b"2\n"
    in_json = await http(port, f"GET /7/card/{uid}", key, "X-AC-JSON: 1")
    assert in_json[2] == b'{"numeric_status": 1}\n'
    assert (await http(port, "GET /7/status/", key))[2] == b"1\n"
    assert (await http(port, f"POST /7/tooluse/1/{uid}", key))[2] == b"1\n"

    before = len(await taps(world))
    # The door that a node opened by its own memory is told; one that it had asked about is not.
    assert (await http(port, f"POST /7/doorevent/1/{uid}", key))[2] == b"1\n"
    assert len(await taps(world)) == before
    assert (await http(port, f"POST /7/doorevent/1/{UNKNOWN}", key))[2] == b"1\n"
    assert (await taps(world))[-1] == ("replay", "in", "unknown_credential")

    refused = [
        (f"GET /7/card/{UNKNOWN}", key),
        ("GET /7/card/04", key),
        ("GET /7/card/", key),
        (f"GET /7/card/{'04' * 60}", key),
        (f"GET /7/card/{uid}", "X-AC-Key: bridge-key"),  # of node 8
        (f"GET /7/card/{uid}", f"{key}\r\n{key}"),
        (f"GET /7/card/{uid}", "X-Other: 1"),
        (f"GET /9/card/{uid}", key),
        (f"POST /7/card/{uid}", key),
        (f"DELETE /7/card/{uid}", key),
        (f"POST /7/grant-to-card/{uid}/by-card/{staff_uid}", key),
        ("GET /../../etc/passwd", key),
        ("GET /", key),
    ]
    for line, header in refused:
        status, head, body = await http(port, line, header)
        # Any other status, an empty body, a 0 or a chunk would open some of these doors.
        assert (status, body) == (200, b"-1\n"), line
        assert b"content-length: 3" in head, line
        assert b"chunked" not in head, line


async def test_doors_stay_shut_without_access_and_the_way_out_stays_open(
    unused_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Access is not there, then takes the call and says nothing."""
    monkeypatch.setenv("NODE_KEY", "node-key")
    silent_port, calls = servers.unused_port(), 0

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        await reader.read()
        writer.close()

    text = f"""
access_url = "http://127.0.0.1:{silent_port}"
[limits]
burst = 3
taps_per_second = 0.001
[http]
port = {unused_port}
[[acnode]]
node = 7
key = "env:NODE_KEY"
{door_lines(None)}
[[acnode]]
node = 8
key = "env:NODE_KEY"
{door_lines(None, direction="out")}
"""
    ways = (f"GET /7/card/{UNKNOWN}", f"GET /8/card/{UNKNOWN}", "GET /8/card/04")
    async with gateway(tmp_path, text, patient=False):
        key = "X-AC-Key: node-key"
        assert [(await http(unused_port, way, key))[2] for way in ways] == [b"-1\n", b"1\n", b"1\n"]
        server = await asyncio.start_server(say_nothing, "127.0.0.1", silent_port)
        async with server:
            assert [(await http(unused_port, way, key))[2] for way in ways[:2]] == [
                b"-1\n",
                b"1\n",
            ]
            assert calls == 2
            # A node that taps without end uses up its own rate, not the exit's.
            assert (await http(unused_port, ways[0], key))[2] == b"-1\n"
            assert (await http(unused_port, ways[0], key))[2] == b"-1\n"
            assert calls == 3
            assert (await http(unused_port, ways[1], key))[2] == b"1\n"
            assert calls == 4
            server.close()
