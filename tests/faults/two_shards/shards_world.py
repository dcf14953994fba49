"""Two time banks with two cities each: an API and a worker of their own, each with a PostgreSQL of
its own (fsync on), and nothing between them but a broker that forgets its log when it dies.
"""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import psutil
from tokens import ISSUER, serving_keys, token

from common import db, kafka
from common.clock import utc_now
from common.events import Topic
from common.ids import new_id
from common.migrate import migrate
from copass import servers
from copass.processes import Program, StartError
from timebank import consumers, service
from timebank.service import CityState, MemberState
from timebank.settings import Settings, as_app_role

MIGRATIONS = Path(service.__file__).parent / "migrations"
PLANTED = Path(__file__).parent / "planted.py"
CITIES = {"west": ("nantes", "brest"), "centre": ("bourges", "dijon")}
MEMBERS = 4
LIMIT_MINUTES = 300
SECRET = "k" * 32
PASSWORD = "secret"
START_AGAIN_S = 0.5
STARTS_MAX = 10
AGREED_WITHIN_S = 60.0
# What identity and places would have made on the broker.
OF_OTHERS = tuple(
    Topic(name, compacted=True) for name in (consumers.CITIES, consumers.MEMBERS, consumers.PLACES)
)


@dataclass
class Part:
    """A process that faults happen to, started again as a supervisor would."""

    name: str
    server: servers.Server
    running: servers.Running | None = None

    async def start(self) -> None:
        for _ in range(STARTS_MAX):
            try:
                self.running = await servers.start(self.server, timeout_s=60)
            except StartError as error:
                # Such as a PostgreSQL whose last processes have not ended yet.
                problem = error
                await asyncio.sleep(START_AGAIN_S)
            else:
                return
        raise problem

    def kill(self) -> None:
        """kill -9; of PostgreSQL the postmaster, whose children then end by themselves."""
        if self.running is not None:
            self.running.kill()

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()

    def signal(self, number: signal.Signals) -> None:
        """To the process and all below it."""
        if self.running is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.running.process.pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.send_signal(number)


@dataclass(frozen=True)
class Member:
    member_id: UUID
    account_id: UUID


@dataclass
class Shard:
    name: str
    postgres: Part
    api: Part
    worker: Part
    http: httpx.AsyncClient
    members: dict[str, list[Member]] = field(default_factory=dict)

    @property
    def cities(self) -> tuple[str, ...]:
        return CITIES[self.name]

    @property
    def dsn(self) -> str:
        """As the owner of the tables, who sees everything."""
        return self.postgres.server.url

    @property
    def data(self) -> Path:
        return Path(self.postgres.server.program.log).parent / "data"

    async def connect(self) -> asyncpg.Connection:
        return await db.connect(self.dsn, name="test")


@dataclass
class World:
    shards: tuple[Shard, Shard]
    broker: Part
    folder: Path

    @property
    def parts(self) -> dict[str, Part]:
        parts = [p for shard in self.shards for p in (shard.postgres, shard.api, shard.worker)]
        return {part.name: part for part in (*parts, self.broker)}

    def shard_of(self, city: str) -> Shard:
        return next(shard for shard in self.shards if city in shard.cities)

    @property
    def cities(self) -> list[str]:
        return [city for shard in self.shards for city in shard.cities]

    def kafka_settings(self) -> Settings:
        """Of somebody who only looks at the broker."""
        return Settings(
            database_url=self.shards[0].dsn,
            kafka_bootstrap=self.broker.server.url,
            kafka_idempotent=False,
            kafka_fetch_wait_ms=100,
            token_issuer=ISSUER,
            jwks_url=f"{ISSUER}/jwks",
        )

    def logs(self) -> str:
        """Where to look when something is wrong."""
        return f"logs in {self.folder}"


async def call(
    shard: Shard,
    path: str,
    body: dict[str, Any] | None,
    key: str,
    *,
    as_: str,
    city: str,
    steward: bool = False,
    timeout_s: float = 5.0,
) -> httpx.Response:
    """A command over HTTP. Raises httpx.HTTPError when nobody answers in time."""
    roles = ("member", "steward") if steward else ("member",)
    bearer = token(as_, city=city, roles=roles)
    headers = {"Authorization": f"Bearer {bearer}", "Idempotency-Key": key}
    return await shard.http.post(f"/v1/{path}", json=body, headers=headers, timeout=timeout_s)


# ── Making it ───────────────────────────────────────────────────────────────────────────────────


def program_of(
    name: str, word: str, port: int, log: Path, environment: dict[str, str], bug: str | None
) -> servers.Server:
    """`python -m timebank WORD`, or the same with a bug planted in it."""
    command = (sys.executable, *([str(PLANTED), bug] if bug else ["-m", "timebank"]), word)
    url = f"http://{servers.HOST}:{port}"

    async def answers() -> None:
        async with httpx.AsyncClient() as http:
            (await http.get(f"{url}/readyz", timeout=3)).raise_for_status()

    program = Program(name, command, log, environment)
    return servers.Server(program, port, url, lambda: None, answers)


async def make_shard(
    name: str, folder: Path, broker_url: str, jwks_url: str, bug: str | None
) -> Shard:
    """A database with the cities and members of this shard; its processes are not started yet."""
    options = {"synchronous_commit": "off"} if bug == "answer_before_it_is_kept" else None
    port = servers.unused_port()
    server = servers.postgres(folder / name, port, PASSWORD, settings=options)
    postgres = Part(f"{name}-postgres", server)
    await postgres.start()
    await migrate(server.url, "timebank", MIGRATIONS)
    ports = servers.unused_port(), servers.unused_port()
    environment = {
        "TIMEBANK_DATABASE_URL": server.url,
        "TIMEBANK_KAFKA_BOOTSTRAP": broker_url,
        "TIMEBANK_KAFKA_IDEMPOTENT": "false",
        "TIMEBANK_KAFKA_FETCH_WAIT_MS": "100",
        "TIMEBANK_TOKEN_ISSUER": ISSUER,
        "TIMEBANK_JWKS_URL": jwks_url,
        "TIMEBANK_PORT": str(ports[0]),
        "TIMEBANK_WORKER_PORT": str(ports[1]),
        "TIMEBANK_CITIES": ",".join(CITIES[name]),
        "TIMEBANK_SHARD": name,
        "TIMEBANK_KEY_SECRET": SECRET,
        "TIMEBANK_CHECK_BOOKS_MINUTES": "0",
    }
    api, worker = (
        Part(
            f"{name}-{word}",
            program_of(
                f"{name}-{word}", word, number, folder / f"{name}-{word}.log", environment, bug
            ),
        )
        for word, number in zip(("api", "worker"), ports, strict=True)
    )
    shard = Shard(name, postgres, api, worker, httpx.AsyncClient(base_url=api.server.url))
    connection = await db.connect(as_app_role(server.url), name="test")
    try:
        async with connection.transaction():
            for city in shard.cities:
                await service.apply_city(
                    connection, CityState(city, "active", "Europe/Paris", 1), utc_now(), new_id
                )
                shard.members[city] = [await join(connection, city) for _ in range(MEMBERS)]
    finally:
        await connection.close()
    return shard


async def join(connection: db.Connection, city: str) -> Member:
    member = MemberState(new_id(), city, "active", 1)
    await service.apply_member(connection, member, utc_now(), new_id)
    account = await connection.fetchval(
        "SELECT account_id FROM account WHERE owner_id = $1", member.member_id
    )
    return Member(member.member_id, account)


async def stand_in_for_others(world: World) -> None:
    """Make the topics of identity and places, also when the broker forgot them."""
    settings = world.kafka_settings()
    while True:
        with contextlib.suppress(Exception):
            await kafka.ensure_topics(settings, OF_OTHERS)
        await asyncio.sleep(1)


async def agree(world: World) -> None:
    """An agreement of each city with each other, as soon as they have heard of each other."""
    for a, b in combinations(world.cities, 2):
        limits = {"limit_out_minutes": LIMIT_MINUTES, "limit_in_minutes": LIMIT_MINUTES}
        proposal = {"city_id": a, "peer_city_id": b, **limits}
        await until_done(world.shard_of(a), a, "agreements", proposal)
        await until_done(world.shard_of(b), b, f"agreements/{b}/{a}/accept", {})


async def until_done(shard: Shard, city: str, path: str, body: dict[str, Any]) -> None:
    async with asyncio.timeout(AGREED_WITHIN_S):
        while True:
            answer = await call(
                shard, path, body, str(new_id()), as_="steward", city=city, steward=True
            )
            if answer.is_success:
                return
            assert answer.status_code in (404, 409, 422, 503), answer.text
            await asyncio.sleep(0.1)


@asynccontextmanager
async def two_shards(bug: str | None = None) -> AsyncIterator[World]:
    """All of it running, every city with an agreement with every other.

    `bug`: one of planted.py, in the processes of both shards. When a test fails, the logs stay.
    """
    folder = Path(tempfile.mkdtemp(prefix="copass-shards-"))
    try:
        async with running_in(folder, bug) as world:
            yield world
    finally:
        forget_data(folder)
    shutil.rmtree(folder, ignore_errors=True)


def forget_data(folder: Path) -> None:
    for data in folder.glob("*/data"):
        shutil.rmtree(data, ignore_errors=True)


@asynccontextmanager
async def running_in(folder: Path, bug: str | None) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        jwks_url = stack.enter_context(serving_keys())
        port = servers.unused_port()
        broker = Part("broker", servers.tansu(folder / "broker", port))
        await broker.start()
        stack.callback(broker.kill)
        shards = []
        for name in CITIES:
            shard = await make_shard(name, folder, broker.server.url, jwks_url, bug)
            stack.push_async_callback(shard.http.aclose)
            for part in (shard.postgres, shard.api, shard.worker):
                stack.callback(part.kill)
            shards.append(shard)
        world = World((shards[0], shards[1]), broker, folder)
        others = asyncio.create_task(stand_in_for_others(world))
        stack.push_async_callback(ended, others)
        await asyncio.gather(
            *(part.start() for shard in shards for part in (shard.api, shard.worker))
        )
        await agree(world)
        yield world


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ── Backups ─────────────────────────────────────────────────────────────────────────────────────


async def back_up(shard: Shard, to: Path) -> None:
    """A cold copy of the shard's database."""
    shard.postgres.stop()
    copy(shard.data, to)
    await shard.postgres.start()


async def restore(shard: Shard, backup: Path) -> None:
    """The database as it was: the mistake after which a log must not go on."""
    for part in (shard.worker, shard.api, shard.postgres):
        part.stop()
    shutil.rmtree(shard.data)
    copy(backup, shard.data)
    for part in (shard.postgres, shard.api, shard.worker):
        await part.start()


def copy(source: Path, target: Path) -> None:
    # With its owners and modes, which PostgreSQL is particular about.
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=60)
