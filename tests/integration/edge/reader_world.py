"""A reader program in front of a real access, and a cable between them that can be cut."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from access_world import SECRET, World, running, until

from access.app import listen
from access.snapshots import follower
from common.clock import utc_now
from common.consumer import Consumer
from copass_edge.reader import program as program_module
from copass_edge.reader.config import Config
from copass_edge.reader.devices import SimulatedRelay
from copass_edge.reader.program import Program

# A board takes its time; tests have none.
program_module.SENDING_PAUSE_S = 0.2
TAPS = int(os.environ.get("READER_TAPS", "60"))


class Cable:
    """A TCP proxy. Cut, it drops what both sides send, as a lost network does; deaf, what the
    service answers."""

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self._target = (at.hostname, at.port)
        self.is_cut = False
        self.is_deaf = False
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_writer = None
        try:
            while self.is_cut:
                await asyncio.sleep(0.05)
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            await asyncio.gather(
                self._carry(reader, far_writer), self._carry(far_reader, writer, is_answer=True)
            )
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self._tasks.discard(task)
            for one in (writer, far_writer):
                if one is not None:
                    one.transport.abort()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_answer: bool = False,
    ) -> None:
        while data := await reader.read(65536):
            if self.is_cut or (is_answer and self.is_deaf):
                continue  # it went into the wire, and nowhere else
            writer.write(data)
            await writer.drain()
        writer.close()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Hand:
    """An input into which tests hold cards; nothing comes from it by itself."""

    async def texts(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    def show(self, text: str, *, granted: bool) -> None:
        del text, granted


@dataclass
class Setup:
    world: World
    cable: Cable
    program: Program
    relay: SimulatedRelay = field(default_factory=SimulatedRelay)


async def paired(world: World, url: str) -> Config:
    """What pairing writes."""
    async with httpx.AsyncClient(base_url=url) as http:
        headers = {"authorization": f"Bearer {world.reader_id}.{SECRET}"}
        answer = (await http.get("/v1/readers/self", headers=headers)).json()
    return Config(
        url=url,
        reader_id=world.reader_id,
        secret=SECRET,
        door_id=world.door_id,
        snapshot_key=answer["snapshot_key"],
        relay="simulated",
    )


@asynccontextmanager
async def worker(world: World) -> AsyncIterator[None]:
    """All that access' worker does for a reader."""
    progress = follower.Progress(world.settings, world.pool, utc_now, every_s=0.2)
    snapshots = Consumer(
        world.settings,
        world.pool,
        follower.SNAPSHOTS_GROUP,
        follower.HANDLERS,
        watch=progress.watch,
    )
    async with running(
        snapshots.run,
        lambda: listen(world.settings, world.app.state.desk),
        world.relay().run,
        world.history_consumer().run,
    ):

        async def knows_reader() -> bool:
            headers = {"authorization": f"Bearer {world.reader_id}.{SECRET}"}
            url = f"/v1/doors/{world.door_id}/snapshot"
            return (await world.http.get(url, headers=headers)).status_code == 200

        await until(knows_reader)
        yield


@asynccontextmanager
async def started(folder: Path, config: Config, relay: SimulatedRelay) -> AsyncIterator[Program]:
    """A reader program, from start to stop."""
    program = Program(folder, config, device=Hand(), relay=relay)
    task = asyncio.create_task(program.run())
    try:
        yield program
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def reader_at(world: World, url: str, folder: Path) -> AsyncIterator[Setup]:
    """A paired reader that is online and has its first snapshot, behind a cable."""
    cable = Cable(url)
    server = await cable.serve()
    relay = SimulatedRelay()
    async with worker(world):
        config = await paired(world, cable.url)
        async with started(folder, config, relay) as program:
            await until(lambda: is_ready(program))
            yield Setup(world, cable, program, relay)
    await cable.close()
    server.close()


async def is_ready(program: Program) -> bool:
    return program.is_online and program.papers.held is not None
