"""The reader program as an installer runs it: paired, killed, started again."""

import asyncio
import json
import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from access_world import SECRET, STEWARD, Person, World, until
from reader_world import is_ready, paired, started, worker
from typer.testing import CliRunner

from copass import servers
from copass_edge.reader.__main__ import app
from copass_edge.reader.config import load_config, save_config
from copass_edge.reader.devices import SimulatedRelay
from copass_edge.reader.health import PROGRAM
from copass_edge.reader.journal import Journal
from copass_edge.reader.program import Program
from copass_edge.reader.status import read_status

# A board that is killed when a tap is written and the relay has not moved yet.
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from copass_edge.reader.config import load_config
from copass_edge.reader.devices import SimulatedRelay
from copass_edge.reader.program import Program

class Moved(SimulatedRelay):
    async def open(self, milliseconds):
        print("moved", flush=True)

class Silence:
    async def texts(self):
        await asyncio.Event().wait()
        yield ""
    def show(self, text, *, granted):
        pass

async def main(folder, card, online):
    program = Program(
        folder, load_config(folder), device=Silence(), relay=Moved(),
        after_written=lambda: os.kill(os.getpid(), signal.SIGKILL),
    )
    task = asyncio.create_task(program.run())
    while online and not (program.is_online and program.papers.held):
        await asyncio.sleep(0.02)
    await program.tap(card, "in")

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "online"))
"""


async def run(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 40)
    return process.returncode or 0, output.decode()


async def test_a_board_that_dies_between_the_log_and_the_relay_loses_no_tap(
    open_world: World, access_url: str, tmp_path: Path
) -> None:
    world, anne = open_world, Person()
    await world.publish(*anne.states(), anne.member(2, places={world.place_id: "staff"}))
    await world.knows(anne)
    async with worker(world):
        # Long enough for a machine that is busy with other tests.
        config = replace(await paired(world, access_url), live_limit_ms=10_000)
        async with started(tmp_path, config, SimulatedRelay()) as program:
            await until(lambda: knows(program, anne))
            outcomes = [await program.tap(anne.uid, "in")]
            at = program.clock.now()
        save_config(tmp_path, config)
        code, output = await run("-c", KILLED, str(tmp_path), anne.uid, "online")
        assert (code, "moved" in output) == (-signal.SIGKILL, False), output
        # Away: nothing answers at this address.
        away = f"http://127.0.0.1:{servers.unused_port()}"
        save_config(tmp_path, replace(config, url=away))
        code, output = await run("-c", KILLED, str(tmp_path), anne.uid, "offline")
        assert (code, "moved" in output) == (-signal.SIGKILL, False), output

        journal = Journal(tmp_path / "journal.sqlite")
        states = journal.counts()
        journal.begin(
            "01a20000-0000-7000-8000-0000000000ff",  # killed while the service was asked
            {"type": "uid", "uid": anne.uid},
            "in",
            at,
            attempted=True,
        )
        journal.close()
        assert states["local"] >= 1
        assert sum(states.get(one, 0) for one in ("local", "answered", "stored")) == 3

        # The power is back: every one of them is in the history, once.
        relay = SimulatedRelay()
        async with started(tmp_path, config, relay) as program:
            await until(lambda: are_stored(program.journal, 4), 40)
            # And sent once more, it is still once: the service knows it by its name.
            program.journal._db.execute(
                "UPDATE tap SET state = 'local', credential = ?",
                (json.dumps({"type": "uid", "uid": anne.uid}),),
            )
            program._something_to_send.set()
            await until(lambda: are_stored(program.journal, 4), 40)
        assert relay.openings == []  # nobody stands there any more
        history = Counter(str(row["tap_id"]) for row in await world.history())
        assert len(history) == 4
        assert set(history.values()) == {1}
        assert outcomes[0].tap_id in history


async def knows(program: Program, person: Person) -> bool:
    if await is_ready(program):
        await program.fetch_snapshot()
    held = program.papers.held
    entry = held.snapshot.find(person.card_key.removeprefix("card:")) if held else None
    return entry is not None and entry.relation == "staff"


async def are_stored(journal: Journal, count: int) -> bool:
    return journal.counts().get("stored") == count


async def test_an_installer_pairs_tests_and_runs_a_board(
    open_world: World, access_url: str, tmp_path: Path
) -> None:
    world, anne = open_world, Person()
    await world.publish(*anne.states())
    await world.knows(anne)
    folder, port = tmp_path / "board", servers.unused_port()

    async def command(*arguments: str, input: str | None = None) -> tuple[int, str]:
        result = await asyncio.to_thread(
            CliRunner().invoke, app, [*arguments, "--folder", str(folder)], input
        )
        return result.exit_code, result.output

    key = f"{world.reader_id}.{SECRET}"
    devices = ("--input", f"tcp:{port}", "--relay", "simulated")
    async with worker(world):
        await until(lambda: is_told(world, anne))
        assert (await command("status"))[0] == 1
        assert (await command("run"))[0] == 1
        # Nothing is kept of what does not work.
        for url, wrong, why in (
            (access_url, "nonsense", "reader's key is"),
            (access_url, f"{world.reader_id}.{'x' * 32}", "does not know this key"),
            (f"http://127.0.0.1:{servers.unused_port()}", key, "cannot be reached"),
            ("http://copass.example", key, "https"),
        ):
            code, output = await command("pair", url, wrong, *devices)
            assert code == 1
            assert why in output.replace("\n", " "), output
        code, output = await command("pair", access_url, key, *devices)
        assert (code, "several doors" in output) == (1, True)
        assert not folder.exists() or not (folder / "config.json").exists()

        code, output = await command(
            "pair", access_url, "-", "--door", world.door_id, *devices, input=key
        )
        assert code == 0, output
        assert SECRET not in output
        assert load_config(folder).door_id == world.door_id
        assert (folder / "config.json").stat().st_mode & 0o77 == 0

        code, output = await command("test", "--card", anne.uid)
        assert code == 0, output
        assert output.count("ok ") == 5
        assert "network_member" in output

        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "copass_edge.reader", "run", "--folder", str(folder),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        try:
            reader, writer = await connect(port)
            for text, answer in (
                (anne.uid, b"OPEN network_member\n"),
                ("junk", b"DENY unreadable\n"),
            ):
                writer.write(f"{text}\n".encode())
                assert await asyncio.wait_for(reader.readline(), 10) == answer
            writer.close()

            async def is_well() -> bool:
                status = read_status(folder, load_config(folder))
                return status.is_well and status.backlog == 0

            await until(is_well, 30)

            async def is_reported() -> bool:
                page = (await world.http.get("/v1/readers/health", headers=STEWARD)).json()
                return [one["program"] for one in page["items"]] == [PROGRAM]

            await until(is_reported, 40)
            module = ("-m", "copass_edge.reader", "status", "--json", "--folder", str(folder))
            code, output = await run(*module)
            assert (code, json.loads(output)["is_well"]) == (0, True)
        finally:
            process.terminate()
            log = (await process.communicate())[1].decode()
        assert process.returncode == 0, log
        assert SECRET not in log
        assert anne.uid not in log


async def is_told(world: World, person: Person) -> bool:
    """Whether the next snapshot has somebody."""
    row = "SELECT FROM snapshot_card JOIN snapshot_member USING (member_id) WHERE card_id = $1"
    return await world.pool.fetchrow(row, person.card_id) is not None


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(20):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
