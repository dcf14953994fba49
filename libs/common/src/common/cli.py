"""The commands that every service has: migrate, api, worker, dead-letters."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar
from uuid import UUID

import typer
import uvicorn
from rich.console import Console
from rich.table import Table

from common import db, logging, telemetry
from common.clock import utc_now
from common.consumer import ask_for_replay, list_dead_letters
from common.http import JoiningHttp
from common.migrate import MigrationError
from common.migrate import migrate as run_migrations
from common.settings import ServiceSettings

console = Console()

# Objects made before the garbage collector looks for cycles among them; Python's own 700 are less
# than one request makes. The memory that it costs is a few megabytes.
COLLECT_AFTER = 20_000
KEEP_ALIVE_S = 30
DRAIN_S = 8


S = TypeVar("S", bound=ServiceSettings)


def service_cli(
    settings_factory: Callable[[], S],
    *,
    api: str,
    worker: Callable[[S], Awaitable[None]],
    migrations: Path,
) -> typer.Typer:
    """The commands of one service.

    `api` is `module:factory`, a function without arguments that makes the app; `worker` runs until
    it is told to stop; `migrations` is the folder of SQL files.
    """
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)

    @app.command("migrate")
    def migrate_command() -> None:
        """Bring the database up to date."""
        settings = settings_factory()
        try:
            applied = asyncio.run(
                run_migrations(
                    settings.database_url.get_secret_value(), settings.service, migrations
                )
            )
        except MigrationError as error:
            console.print(f"[red]{error}[/red]")
            raise typer.Exit(1) from error
        for name in applied:
            console.print(f"applied {name}")
        if not applied:
            console.print("nothing to apply")

    @app.command("api")
    def api_command() -> None:
        """Serve HTTP until stopped."""
        settings = settings_factory()
        set_up(settings)
        uvicorn.run(
            api,
            factory=True,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http=JoiningHttp,
            log_config=None,
            ws="none",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )

    @app.command("worker")
    def worker_command() -> None:
        """Relay the outbox and consume events until stopped."""
        settings = settings_factory()
        set_up(settings)
        # Imported here: the other commands do without.
        import uvloop

        uvloop.run(run_to_the_end(worker(settings)))

    dead_letters = typer.Typer(no_args_is_help=True, help="Messages that could not be handled.")
    app.add_typer(dead_letters, name="dead-letters")

    @dead_letters.command("list")
    def list_command() -> None:
        """Show the unresolved ones, oldest first."""
        asyncio.run(show_dead_letters(settings_factory()))

    @dead_letters.command("replay")
    def replay_command(
        ids: Annotated[list[UUID] | None, typer.Argument(help="Which; all without any.")] = None,
    ) -> None:
        """Ask the worker to try them again."""
        count = asyncio.run(replay_dead_letters(settings_factory(), ids or None))
        console.print(f"{count} asked for; the worker tries them within seconds")

    return app


def set_up(settings: ServiceSettings) -> None:
    """Logs and traces of a process that serves."""
    logging.configure(settings.service, settings.log_level)
    telemetry.configure(settings)
    gc.set_threshold(COLLECT_AFTER)


async def run_to_the_end(awaitable: Awaitable[None]) -> None:
    await awaitable


async def show_dead_letters(settings: ServiceSettings) -> None:
    connection = await db.connect(
        settings.database_url.get_secret_value(), name=f"{settings.service}-cli"
    )
    try:
        letters = await list_dead_letters(connection)
    finally:
        await connection.close(timeout=5)
    table = Table("id", "consumer", "topic", "offset", "failed at", "error")
    for letter in letters:
        table.add_row(
            str(letter["id"]),
            letter["consumer"],
            f"{letter['topic']}[{letter['partition']}]",
            str(letter["message_offset"]),
            letter["failed_at"].isoformat(timespec="seconds"),
            letter["error"],
        )
    console.print(table)


async def replay_dead_letters(settings: ServiceSettings, ids: list[UUID] | None) -> int:
    connection = await db.connect(
        settings.database_url.get_secret_value(), name=f"{settings.service}-cli"
    )
    try:
        return await ask_for_replay(connection, ids, utc_now())
    finally:
        await connection.close(timeout=5)
