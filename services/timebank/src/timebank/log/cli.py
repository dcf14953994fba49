"""`python -m timebank log-now | log-timing`: the log without a worker, and how fast it proves."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Annotated

import orjson
import typer

from common import db
from common.cli import console
from common.clock import utc_now
from timebank.clearing import service as clearing_service
from timebank.clearing.keys import Vault
from timebank.log import service, store
from timebank.settings import Settings


def add_commands(cli: typer.Typer, read_settings: Callable[[], Settings]) -> None:
    @cli.command("log-now")
    def log_now() -> None:
        """Put all that waits into the logs and sign them, as the worker does bit by bit; for after
        an import. Exit code 1 without a secret for the cities' keys."""
        settings = read_settings().for_app()
        secret = settings.key_secret.get_secret_value()
        if not secret:
            console.print("[red]Nothing can be signed without TIMEBANK_KEY_SECRET.[/red]")
            raise typer.Exit(1)
        done = asyncio.run(catch_up(settings, Vault(secret)))
        console.print(f"{done} entries")

    @cli.command("log-timing")
    def log_timing(
        city: Annotated[str, typer.Argument()],
        proofs: Annotated[int, typer.Option(min=1, max=100_000)] = 500,
        seed: Annotated[int, typer.Option()] = 1,
    ) -> None:
        """How long inclusion proofs of entries anywhere in a city's log take, as JSON: seconds."""
        found = asyncio.run(time_proofs(read_settings().for_app(), city, proofs, seed))
        typer.echo(orjson.dumps(found))


async def catch_up(settings: Settings, vault: Vault) -> int:
    """How many entries were added."""
    dsn = settings.database_url.get_secret_value()
    done = 0
    async with await db.create_pool(dsn, name="timebank-log-now", max_size=2) as pool:
        async with pool.acquire() as conn, conn.transaction():
            await clearing_service.ensure_keys(conn, vault, utc_now())
        while added := await service.work_once(pool, None, utc_now()):
            done += added
        await service.work_once(pool, vault, utc_now())
    return done


async def time_proofs(settings: Settings, city: str, proofs: int, seed: int) -> list[float]:
    choose = random.Random(seed)  # noqa: S311 - which entries, repeatable
    connection = await db.connect(settings.database_url.get_secret_value(), name="timebank-timing")
    try:
        signed = await store.last_checkpoint(connection, city)
        if signed is None:
            raise typer.BadParameter(f"{city} signed no checkpoint here")
        found = []
        for _ in range(proofs):
            index = choose.randrange(signed.size)
            started = time.perf_counter()
            await service.inclusion(connection, city, index, signed.size)
            found.append(time.perf_counter() - started)
        return found
    finally:
        await connection.close(timeout=5)
