"""What the ledger is measured on: a PostgreSQL of its own, books in it, pgbench beside them.

The server has the settings of the embedded stack, durable commits included. The time bank runs as
its own commands (`migrate`, `api`, `import`): nothing of it is imported here.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count, cycle, pairwise
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from copass import servers
from copass.bench.load import MakeRequest
from copass.bench.taps import BenchError, port_open
from copass.processes import Program, end_of_log, spawn, stop, wait_ready
from copass.servers import HOST, Running, unused_port

CITY = "bench"
ISSUER = "https://bench.invalid"
KEY_ID = "bench"
TOKEN_S = 3 * 3600
PAYERS = 64
ROUNDS_AT_ONCE = 100
COMMAND_TIMEOUT_S = 1800
# So far below any sum of what is given here that no floor is ever met.
FLOOR = -1_000_000_000
MEMO = "Cuisine pour la maison"
PGBENCH_SCALE = 10
MIGRATED = "migrated"


@dataclass(frozen=True, slots=True)
class Book:
    """A migrated database with one city of members: account id → who owns it."""

    url: str
    owners: dict[UUID, UUID]

    @property
    def accounts(self) -> list[UUID]:
        return list(self.owners)


@dataclass(slots=True)
class Rig:
    """A running server and the folder where everything lies."""

    folder: Path
    postgres: Running
    files: count[int]

    def url_of(self, database: str) -> str:
        return self.postgres.url.rsplit("/", 1)[0] + f"/{database}"

    async def sql(self, statement: str, database: str = "postgres") -> None:
        connection = await asyncpg.connect(self.url_of(database))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    # ── Books ───────────────────────────────────────────────────────────────────────────────────

    async def open_book(self, database: str, accounts: int) -> Book:
        """A new database with an empty book of one city."""
        await self.sql(f"CREATE DATABASE {database} TEMPLATE {MIGRATED}")
        connection = await asyncpg.connect(self.url_of(database))
        try:
            await connection.execute(
                "INSERT INTO book (city_id, status, city_version, opened_at)"
                " VALUES ($1, 'active', 1, now())",
                CITY,
            )
            rows = await connection.fetch(
                "INSERT INTO account (account_id, city_id, kind, owner_id, floor_minutes,"
                " opened_at) SELECT gen_random_uuid(), $1, 'member', gen_random_uuid(), $2, now()"
                " FROM generate_series(1, $3) RETURNING account_id, owner_id",
                CITY,
                FLOOR,
                accounts,
            )
        finally:
            await connection.close()
        return Book(self.url_of(database), {row["account_id"]: row["owner_id"] for row in rows})

    async def fill(self, book: Book, postings: int) -> int:
        """Add transfers in sets, past no rule of the database; how many postings there are then.

        In each round every account gives to the one beside it in the ring, so all end at zero.
        """
        connection = await asyncpg.connect(book.url, command_timeout=COMMAND_TIMEOUT_S)
        rounds = -(-postings // (2 * len(book.owners)))
        try:
            for first in range(0, rounds, ROUNDS_AT_ONCE):
                await connection.execute(FILL, CITY, first, min(first + ROUNDS_AT_ONCE, rounds) - 1)
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")
            ((filled, minutes),) = await connection.fetch(
                "SELECT count(*), sum(minutes) FROM posting"
            )
        finally:
            await connection.close()
        if minutes != 0:
            raise BenchError(f"a filled book sums to {minutes}")
        return int(filled)

    # ── Commands ────────────────────────────────────────────────────────────────────────────────

    def environment(self, url: str, **more: str) -> dict[str, str]:
        own = {
            "DATABASE_URL": url,
            "KAFKA_BOOTSTRAP": f"{HOST}:1",  # no worker runs here: events stay in the outbox
            "TOKEN_ISSUER": ISSUER,
            "JWKS_URL": f"{ISSUER}/jwks",
            "KEY_SECRET": "bench" * 10,
            **more,
        }
        return {f"TIMEBANK_{name}": value for name, value in own.items()}

    def timebank(self, url: str, *words: str) -> None:
        """One command of the time bank. Raises BenchError when it fails."""
        self.command([sys.executable, "-m", "timebank", *words], self.environment(url))

    def command(self, words: Sequence[str], environment: dict[str, str] | None = None) -> str:
        """What a command prints. Raises BenchError when it fails."""
        done = subprocess.run(
            words,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    # ── Contenders and baseline ─────────────────────────────────────────────────────────────────

    async def pgbench(self, seconds: float, *, clients: int = 8) -> float:
        """Transactions per second of pgbench's own TPC-B script, on the same server."""
        words = [str(servers.postgres_binaries() / "pgbench"), "-n", "-c", str(clients), "-j", "2"]
        words += ["-T", str(max(1, round(seconds))), self.url_of("pgbench")]
        out = await asyncio.to_thread(self.command, words)
        (line,) = [line for line in out.splitlines() if line.startswith("tps = ")]
        return float(line.split()[2])

    async def prepare(self) -> None:
        """The databases that all begins with: the time bank's without a book, and pgbench's."""
        await self.sql(f"CREATE DATABASE {MIGRATED}")
        await asyncio.to_thread(self.timebank, self.url_of(MIGRATED), "migrate")
        await self.sql("CREATE DATABASE pgbench")
        binary = str(servers.postgres_binaries() / "pgbench")
        words = [binary, "-i", "-q", "-s", str(PGBENCH_SCALE), self.url_of("pgbench")]
        await asyncio.to_thread(self.command, words)

    async def import_rate(self, book: Book, rows: int) -> float:
        """Transfers per second of `python -m timebank import`, while it imports.

        Counted between the first batch and the last by the ledger's own `posted_at`: like pgbench's
        number, it leaves out how long a program takes to start.
        """
        number = next(self.files)
        file = self.folder / f"import-{number}.csv"
        await asyncio.to_thread(write_rows, file, book.accounts, rows, seed=number)
        source = f"bench-{number}"
        options = [str(file), "--city", CITY, "--source", source]
        await asyncio.to_thread(self.timebank, book.url, "import", *options)
        file.unlink()
        connection = await asyncpg.connect(book.url)
        try:
            batches = await connection.fetch(
                "SELECT posted_at, count(*) AS transfers FROM transfer WHERE requested_by = $1"
                " GROUP BY posted_at ORDER BY posted_at",
                f"import:{source}",
            )
        finally:
            await connection.close()
        if sum(batch["transfers"] for batch in batches) != rows or len(batches) < 2:
            raise BenchError(f"{rows} rows were imported in {len(batches)} batches")
        elapsed = batches[-1]["posted_at"] - batches[0]["posted_at"]
        return (rows - int(batches[-1]["transfers"])) / float(elapsed.total_seconds())

    @asynccontextmanager
    async def api(self, book: Book) -> AsyncIterator[tuple[str, MakeRequest]]:
        """The time bank's api process: its URL, and transfers of its members to each other."""
        key = Ed25519PrivateKey.generate()
        issuer = await serve(key_set(key))
        port = unused_port()
        program = Program(
            "timebank-api",
            (sys.executable, "-m", "timebank", "api"),
            self.folder / "timebank-api.log",
            self.environment(
                book.url,
                HOST=HOST,
                PORT=str(port),
                JWKS_URL=f"http://{HOST}:{issuer.sockets[0].getsockname()[1]}/jwks",
            ),
        )
        process = spawn(program)
        try:
            await wait_ready(program, process, lambda: port_open(port), timeout_s=60)
            yield f"http://{HOST}:{port}", transfer_requests(book, key)
        except BenchError as error:
            raise BenchError(f"{error}\n{end_of_log(program.log)}") from error
        finally:
            await asyncio.to_thread(stop, process, signal.SIGTERM)
            issuer.close()
            await issuer.wait_closed()


FILL = """
WITH line AS (
    SELECT account_id, row_number() OVER (ORDER BY account_id) - 1 AS place,
        count(*) OVER () AS accounts
    FROM account WHERE city_id = $1
), pair AS MATERIALIZED (
    SELECT uuidv7() AS transfer_id, round, giver.account_id AS giver, taker.account_id AS taker,
        1 + round % 60 AS minutes
    FROM generate_series($2::int, $3::int) AS round
    CROSS JOIN line AS giver
    JOIN line AS taker ON taker.place = (giver.place + 1) % giver.accounts
), new_transfer AS (
    INSERT INTO transfer (transfer_id, city_id, kind, requested_by, posted_at)
    SELECT transfer_id, $1, 'transfer', 'bench', now() FROM pair ORDER BY transfer_id
), new_posting AS (
    INSERT INTO posting (account_id, account_version, transfer_id, city_id, minutes,
        balance_minutes, posted_at)
    SELECT leg.account_id, leg.version, transfer_id, $1, leg.minutes, leg.balance, now()
    FROM pair CROSS JOIN LATERAL (VALUES
        (giver, 2 * round + 1, -minutes, -minutes), (taker, 2 * round + 2, minutes, 0)
    ) AS leg (account_id, version, minutes, balance)
    ORDER BY transfer_id
)
UPDATE account SET version = 2 * ($3 + 1), posted_at = now() WHERE city_id = $1
"""


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    """A server in a temporary folder. Afterwards it is stopped and everything is removed."""
    with tempfile.TemporaryDirectory(prefix="copass-ledger-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = servers.postgres(folder / "postgres", unused_port(), uuid4().hex)
        running = await servers.start(server, timeout_s=60)
        try:
            rig = Rig(folder, running, count(1))
            await rig.prepare()
            yield rig
        finally:
            await asyncio.to_thread(running.stop)


def write_rows(file: Path, accounts: Sequence[UUID], rows: int, *, seed: int) -> None:
    """A file in the layout of ours: members give to each other, each with a few words."""
    choose = random.Random(seed)  # noqa: S311 - a bench, repeatable
    with file.open("w", encoding="utf-8") as out:
        out.write("id,from_account,to_account,minutes,memo,occurred_at\n")
        for number in range(rows):
            payer, payee = choose.sample(accounts, 2)
            minutes = choose.randrange(1, 120)
            out.write(f"{number},{payer},{payee},{minutes},{MEMO},2026-01-05T10:00:00Z\n")


def transfer_requests(book: Book, key: Ed25519PrivateKey) -> MakeRequest:
    """Transfers in turn from members with a token each, every one with a key of its own."""
    accounts = book.accounts
    run = uuid4().hex[:16]
    parts = []
    for payer, payee in list(pairwise(accounts))[:PAYERS]:
        fields = {"from_account": str(payer), "to_account": str(payee), "minutes": 5, "memo": MEMO}
        body = orjson.dumps(fields).decode()
        parts.append(
            "POST /v1/transfers HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {token(key, book.owners[payer])}\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: {run}-%012x\r\n"
            f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
        )
    numbers, turns = count(), cycle(parts)
    return lambda: (next(turns) % next(numbers)).encode()


def token(key: Ed25519PrivateKey, member_id: UUID) -> str:
    """An access token as identity gives it to a member, but that it lasts as long as the bench."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": str(member_id),
        "aud": ["timebank"],
        "iat": now,
        "exp": now + TOKEN_S,
        "jti": str(uuid4()),
        "kind": "member",
        "city": CITY,
        "roles": ["member", "resident"],
    }
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": KEY_ID, "typ": "at+jwt"})


def key_set(key: Ed25519PrivateKey) -> bytes:
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    x = urlsafe_b64encode(raw).rstrip(b"=").decode()
    return orjson.dumps(
        {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": KEY_ID, "alg": "EdDSA"}]}
    )


async def serve(document: bytes) -> asyncio.Server:
    """An HTTP server with one answer to everything."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(document)}"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + b"\r\nConnection: close\r\n\r\n" + document)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, HOST, 0)
