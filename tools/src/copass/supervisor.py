"""The process that runs a network: starts everything in order, keeps it running, stops it.

`python -m copass.supervisor FD HOME PORT_BASE BROKER SEED` is started by `python -m copass up`;
FD is a socket to it. JSON lines go up (`{"event": …}`), one word comes down: `detach`. When the
other end closes without it, the person is gone, and everything is stopped.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from copass import databases, leftovers, servers
from copass.checks import check_ports, check_space, rotate_log
from copass.network import (
    SERVICES,
    Broker,
    Network,
    Secrets,
    disk_error,
    has_portal,
    load_or_make_secrets,
    python,
    write_atomically,
)
from copass.preload import Preloaded
from copass.processes import Process, Program, StartError, end_of_log, spawn
from copass.supervised import Part, Supervised, exited

ALREADY_RUNS = 3
_PR_SET_CHILD_SUBREAPER = 36

# Generous: a process that dies is noticed at once, and a busy machine is slow.
READY_TIMEOUT_S = 120.0
MIGRATE_TIMEOUT_S = 300.0
SEED_TIMEOUT_S = 900.0
REAP_EVERY_S = 2.0
REQUEST_MAX = 4096


def control_path(home_descriptor: int) -> str:
    """The control socket's address; through the descriptor, as socket addresses are short."""
    return f"/proc/self/fd/{home_descriptor}/control.sock"


async def http_answers(url: str) -> None:
    """GET url; raises unless it answers 200."""
    host, port = url.removeprefix("http://").split("/", 1)[0].split(":")
    path = "/" + url.removeprefix("http://").split("/", 1)[1]
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read(4096)
    finally:
        writer.close()
    if answer.split(b" ", 2)[1:2] != [b"200"]:
        raise StartError(f"{url} answers {answer.decode(errors='replace').splitlines()[-1:]}")


def dead_children() -> set[int]:
    """Our children that ended and that nobody has waited for."""
    found = set()
    with contextlib.suppress(OSError):
        for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            with contextlib.suppress(OSError):
                # The state follows the command's name, which is in brackets.
                if Path(f"/proc/{word}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    found.add(int(word))
    return found


class Supervisor:
    """One network, from nothing to nothing."""

    def __init__(self, network: Network, client: socket.socket, *, seed: bool) -> None:
        self.network = network
        self.seed = seed
        self.parts: dict[str, Supervised] = {}
        self.ready = False
        self.started_at = time.time()
        self._client: socket.socket | None = client
        self._stop = asyncio.Event()
        self._pids = network.home / "pids"
        self._preloaded: Preloaded | None = None

    # --- telling ---

    def tell(self, event: str, **fields: Any) -> None:
        """To the log, and to the person while there is one."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        print(f"{now} {event} {words}", file=sys.stderr, flush=True)
        if self._client is not None:
            try:
                self._client.sendall(json.dumps({"event": event, **fields}).encode() + b"\n")
            except OSError:
                self._client = None

    def _changed(self, part: Supervised, words: str) -> None:
        self.tell("part", name=part.name, state=part.state, words=words)
        if part.pid is not None:
            leftovers.note(self._pids, part.name, part.pid)
        else:
            leftovers.forget(self._pids, part.name)
        if self.ready and part.pid is not None:
            with contextlib.suppress(StartError):
                self._write_run_file()

    # --- life ---

    async def run(self) -> int:
        """Until stopped; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        listener = loop.create_task(self._listen_to_client())
        reaper = loop.create_task(self._reap_orphans())
        code = 0
        control: asyncio.Server | None = None
        stop = loop.create_task(self._stop.wait())
        up = loop.create_task(self._bring_up())
        home = os.open(self.network.home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            (self.network.home / "control.sock").unlink(missing_ok=True)
            control = await asyncio.start_unix_server(self._serve_control, control_path(home))
            await asyncio.wait({stop, up}, return_when=asyncio.FIRST_COMPLETED)
            if up.done():
                up.result()
                await stop
            elif not self.ready:
                code = 130
        except (StartError, OSError) as error:
            code = 1
            told = disk_error(error, self.network.home) if isinstance(error, OSError) else error
            self.tell("failed", reason=str(told))
        finally:
            stop.cancel()
            up.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await up
            self.ready = False
            if self._preloaded is not None:
                self._preloaded.close()
            self.network.run_file.unlink(missing_ok=True)
            await self._take_down()
            reaper.cancel()
            listener.cancel()
            if control is not None:
                control.close()
            (self.network.home / "control.sock").unlink(missing_ok=True)
            os.close(home)
        self.tell("stopped")
        return code

    async def _listen_to_client(self) -> None:
        client = self._client
        if client is None:
            return
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(client, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(client)
        try:
            word = client.recv(REQUEST_MAX)
        except OSError:
            word = b""
        if word != b"detach\n":
            self._stop.set()
        self._client = None
        client.close()

    async def _reap_orphans(self) -> None:
        """PostgreSQL's own children come to us when their parent is killed.

        Only what is dead at two looks in a row: whoever started a process waits for it at once.
        """
        dead_before: set[int] = set()
        while True:
            await asyncio.sleep(REAP_EVERY_S)
            dead = dead_children()
            for pid in dead & dead_before:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - WNOHANG does not wait
            dead_before = dead

    async def _bring_up(self) -> None:
        network = self.network
        left = await asyncio.to_thread(leftovers.stop_all, self._pids)
        leftovers.note(self._pids, "supervisor", os.getpid())
        if left:
            self.tell("step", words=f"stopped what an earlier run left: {', '.join(left)}")
        check_space(network.home)
        check_ports(network.ports.all(network.broker, portal=has_portal()), network.port_base)
        keys = load_or_make_secrets(network.home)
        (network.home / "logs").mkdir(exist_ok=True)
        for log in (network.home / "logs").glob("*.log"):
            if log.name != "supervisor.log":
                rotate_log(log)

        self._preloaded = Preloaded(network.log("preload"))
        self.tell("step", words=f"PostgreSQL, Valkey, Kafka ({network.broker})")
        await self._start(*await asyncio.to_thread(self._servers, keys))
        self.tell("step", words="databases")
        await databases.make_databases(self._postgres_url(keys), keys)
        await self._migrate(keys)
        self.tell("step", words="services")
        await asyncio.gather(self._start(*self._services(keys)), self._bootstrap(keys))
        if self.seed:
            self.tell("step", words="demo network")
            await self._seed()
        self._preloaded.close()
        self._keys = keys
        self._write_run_file()
        self.ready = True
        self.tell("ready")

    def _launch(self, program: Program) -> Process:
        return spawn(program) if self._preloaded is None else self._preloaded.launch(program)

    async def _start(self, *parts: Part) -> None:
        for part in parts:
            self.parts[part.name] = Supervised(part, self._changed, self._launch)
        await asyncio.gather(
            *(self.parts[part.name].start(timeout_s=READY_TIMEOUT_S) for part in parts)
        )

    async def _take_down(self) -> None:
        """The services first, then what they stand on."""
        base = ("postgres", "valkey", "kafka")
        above = [part for name, part in self.parts.items() if name not in base]
        below = [part for name, part in self.parts.items() if name in base]
        for stage in (above, below):
            await asyncio.gather(*(part.close() for part in stage))
        leftovers.forget(self._pids, "supervisor")

    # --- what runs ---

    def _postgres_url(self, keys: Secrets) -> str:
        port = self.network.ports.postgres
        return f"postgresql://postgres:{keys.postgres}@{servers.HOST}:{port}/postgres"

    def _servers(self, keys: Secrets) -> list[Part]:
        network, ports = self.network, self.network.ports
        if network.broker is Broker.apache:
            from copass.kafka import apache

            broker = apache(
                network.home / "kafka-log",
                ports.kafka,
                controller_port=ports.kafka_controller,
                log=network.log("kafka"),
            )
        else:
            broker = servers.tansu(network.home / "tansu", ports.kafka, log=network.log("kafka"))
        every = (
            servers.postgres(
                network.postgres_folder, ports.postgres, keys.postgres, log=network.log("postgres")
            ),
            servers.valkey(network.home / "valkey", ports.valkey, log=network.log("valkey")),
            broker,
        )
        return [Part(server.program, server.answers, server.prepare) for server in every]

    def _services(self, keys: Secrets) -> list[Part]:
        network = self.network
        apis = (*SERVICES, "portal") if has_portal() else SERVICES
        wanted = [(name, "api", network.api_url(name)) for name in apis]
        wanted += [(name, "worker", network.worker_url(name)) for name in SERVICES]
        return [
            Part(
                python(network, keys, service, command, name=f"{service}-{command}"),
                partial(http_answers, f"{url}/readyz"),
            )
            for service, command, url in wanted
        ]

    async def _migrate(self, keys: Secrets) -> None:
        mark = self.network.postgres_folder / "data" / "copass-migrated"  # goes with the data
        digest = await asyncio.to_thread(databases.migrations_digest)
        if mark.exists() and mark.read_text() == digest:
            return  # a second of each service's start is saved
        self.tell("step", words="migrations")
        programs = [
            python(self.network, keys, service, "migrate", name=f"{service}-migrate")
            for service in SERVICES
        ]
        await asyncio.gather(*(self._run_once(one, MIGRATE_TIMEOUT_S) for one in programs))
        mark.write_text(digest)

    async def _bootstrap(self, keys: Secrets) -> None:
        from copass.demo_data import ADMIN_EMAIL, PASSWORD

        mark = self.network.postgres_folder / "data" / "copass-bootstrapped"
        if mark.exists():
            return
        program = python(
            self.network,
            keys,
            "identity",
            *("bootstrap", "--email", ADMIN_EMAIL),
            name="identity-bootstrap",
            extra={"IDENTITY_BOOTSTRAP_PASSWORD": PASSWORD},
        )
        await self._run_once(program, MIGRATE_TIMEOUT_S)
        mark.touch()

    async def _seed(self) -> None:
        program = Program(
            name="seed",
            command=(sys.executable, "-m", "copass", "seed"),
            log=self.network.log("seed"),
            environment={
                "COPASS_HOME": str(self.network.home),
                "COPASS_PORT_BASE": str(self.network.port_base),
            },
        )
        await self._run_once(program, SEED_TIMEOUT_S)

    async def _run_once(self, program: Program, timeout_s: float) -> None:
        """Run a program to its end. Raises StartError unless it exits with 0 within the time."""
        process = self._launch(program)
        leftovers.note(self._pids, program.name, process.pid)
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await exited(process.pid)
        except TimeoutError as error:
            raise StartError(f"{program.name} took more than {timeout_s:.0f} s") from error
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        await exited(process.pid)
                process.kill()
            process.wait()
            leftovers.forget(self._pids, program.name)
        if process.returncode != 0:
            raise StartError(
                f"{program.name} failed (exit code {process.returncode})\n{end_of_log(program.log)}"
            )
        self.tell("done", name=program.name, seconds=round(time.monotonic() - started, 2))

    def _write_run_file(self) -> None:
        network, keys = self.network, self._keys
        demo: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            demo = json.loads((network.home / "demo.json").read_text(encoding="utf-8"))
        apis = ("portal", *SERVICES) if has_portal() else SERVICES
        run = {
            **{name: network.api_url(name) for name in apis},
            "postgres": self._postgres_url(keys),
            "databases": {name: network.database_url(name, keys) for name in SERVICES},
            "redis": network.redis_url,
            "kafka": network.kafka_bootstrap,
            "broker": network.broker,
            "workers": {name: network.worker_url(name) for name in SERVICES},
            "port_base": network.port_base,
            **{name: demo.get(name, {}) for name in ("logins",)},
            **{name: demo.get(name, []) for name in ("readers", "cards")},
            "supervisor": os.getpid(),
            "pids": {name: part.pid for name, part in self.parts.items() if part.pid},
        }
        write_atomically(network.run_file, json.dumps(run, ensure_ascii=False, indent=1) + "\n")

    # --- control ---

    async def _serve_control(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.timeout(120):
                line = await reader.readline()
                answer = await self._obey(json.loads(line))
        except (StartError, ValueError, KeyError, TypeError, TimeoutError) as error:
            answer = {"ok": False, "message": str(error) or repr(error)}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _obey(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request["command"]
        if command == "status":
            parts = [
                {"name": p.name, "state": p.state, "pid": p.pid, "restarts": p.restarts}
                for p in self.parts.values()
            ]
            return {"ok": True, "ready": self.ready, "since": self.started_at, "parts": parts}
        part = self.parts.get(request["name"])
        if part is None:
            known = ", ".join(self.parts)
            raise StartError(f"there is no process {request['name']}; there are: {known}")
        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "restart": lambda: part.restart(timeout_s=READY_TIMEOUT_S),
            "start": lambda: part.start(timeout_s=READY_TIMEOUT_S),
            "stop": part.stop,
        }
        if command == "kill":
            part.kill(signal.Signals(request["signal"]), stay_down=bool(request["stay_down"]))
        else:
            await actions[command]()
        return {"ok": True, "message": f"{part.name}: {command}", "pid": part.pid}


def take_lock(home: Path) -> IO[str] | None:
    """The lock that one supervisor per folder holds while it lives; None when another has it."""
    lock = (home / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def main() -> None:
    descriptor, home, base, broker, seed = sys.argv[1:6]
    network = Network(Path(home), int(base), Broker(broker))
    client = socket.socket(fileno=int(descriptor))
    client.set_inheritable(False)
    os.chdir(network.home)
    lock = take_lock(network.home)
    if lock is None:
        raise SystemExit(ALREADY_RUNS)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    async def supervise() -> int:
        return await Supervisor(network, client, seed=seed == "1").run()

    raise SystemExit(asyncio.run(supervise()))


if __name__ == "__main__":
    main()
