"""A gateway in front of a real access: its configuration as an operator writes it, run whole."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from access_world import SECRET, Person, World, new, until

from copass_edge.gateway import asking, fabomatic, running, udp
from copass_edge.gateway.settings import load_config

PATIENCE = (
    (asking, "ANSWER_SECONDS_MAX"),
    (fabomatic, "REPLY_SECONDS_MAX"),
    (udp, "COMMAND_SECONDS_MAX"),
)


def door_lines(world: World | None, *, direction: str = "in") -> str:
    """The lines of a device at the world's door; without a world, at some door."""
    reader_id, door_id = (world.reader_id, world.door_id) if world else (new(), new())
    os.environ["GATEWAY_TEST_READER"] = f"{reader_id}.{SECRET}"
    return (
        f'door_id = "{door_id}"\n'
        'reader_key = "env:GATEWAY_TEST_READER"\n'
        f'direction = "{direction}"\n'
    )


@asynccontextmanager
async def gateway(folder: Path, text: str, *, patient: bool = True) -> AsyncIterator[None]:
    """The gateway of this TOML, from start to stop. Patient: it waits longer than somebody at a
    door would, as tests run on machines that do much else."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in PATIENCE if patient else ():
            patch.setattr(module, name, 20.0)
        async with started(folder, text):
            yield


@asynccontextmanager
async def started(folder: Path, text: str) -> AsyncIterator[None]:
    file = folder / "gateway.toml"
    file.write_text(text)
    stop = asyncio.Event()
    parts = running.build(load_config(file), folder)
    task = asyncio.create_task(running.run(parts, stop=stop))

    async def has_begun() -> bool:
        if task.done():
            task.result()
        if parts.config.http is None:
            return True
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", parts.config.http.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    try:
        await until(has_begun)
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


async def member(world: World, uid: str | None = None, **changes: object) -> Person:
    """A member whom the door lets in, known to access."""
    anne = Person()
    anne.uid = uid or anne.uid
    states = [anne.member(**changes), anne.card(), anne.standing("good")]
    await world.publish(*states)
    await world.knows(anne)
    return anne


async def taps(world: World) -> list[tuple[str, str, str]]:
    """Mode, direction and reason of all that access recorded, in order."""
    entries = await world.pipe.call("XRANGE", "taps", "-", "+")
    return [_tap(fields) for _, fields in entries]


def _tap(fields: list[bytes]) -> tuple[str, str, str]:
    event = next(orjson.loads(value) for value in fields if value.startswith(b"{"))
    return event["mode"], event["direction"], event["reason"]
