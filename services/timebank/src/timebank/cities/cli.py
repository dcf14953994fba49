"""The commands for a whole city. Each says what it did, or why not; exit code 1 when not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from aiokafka.errors import KafkaError
from rich.markup import escape
from rich.progress import Progress, TaskID, TextColumn
from rich.table import Table

from common import db
from common.cli import console
from common.clock import utc_now
from common.db import Conn
from common.ids import new_id
from timebank.app import vault_of
from timebank.cities.arriving import Arrived, CannotArrive, arrive
from timebank.cities.leaving import CannotLeave, Left, leave
from timebank.cities.leaving import cancel as cancel_leaving
from timebank.cities.package import SECRET_MIN, Package, WrongPackage, open_package
from timebank.clearing.handover import Handover
from timebank.clearing.keys import Vault
from timebank.clearing.rotation import NotHandedOver, rotate
from timebank.log import cosigning_store, halting, recall
from timebank.log import store as log_store
from timebank.settings import Settings

OVERLAP_HOURS = 168

Secret = Annotated[
    str,
    typer.Option(
        envvar="TIMEBANK_PACKAGE_SECRET",
        help="The passphrase that seals the city's key in the package.",
        show_envvar=True,
    ),
]
City = Annotated[str, typer.Argument(help="The city's id, as in its web address.")]


def stop(reason: str) -> NoReturn:
    console.print(f"[red]{escape(reason)}[/red]")
    raise typer.Exit(1)


def vault_for(settings: Settings) -> Vault:
    return vault_of(settings) or stop("TIMEBANK_KEY_SECRET is not set: no city signs anything here")


@asynccontextmanager
async def transaction(settings: Settings) -> AsyncIterator[Conn]:
    """One transaction as the service's own role."""
    dsn = settings.for_app().database_url.get_secret_value()
    connection = await db.connect(dsn, name="timebank-cities")
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close(timeout=5)


def add_commands(cli: typer.Typer, read_settings: Callable[[], Settings]) -> None:
    @cli.command("export-city")
    def export_city(
        city: City,
        to: Annotated[
            Path | None, typer.Option(dir_okay=False, help="Where to write the package.")
        ] = None,
        secret: Secret = "",
        cancel: Annotated[
            bool, typer.Option("--cancel", help="Open a frozen city again, before it has moved.")
        ] = False,
    ) -> None:
        """Write a city into a package, for another time bank to go on with. This one serves it no
        more, from before the package is whole. Killed anywhere, say the same again."""
        settings = read_settings()
        try:
            if cancel:
                asyncio.run(run_cancel(settings, city))
                console.print(f"{city} is open again.")
                return
            if to is None:
                stop("Say where to write the package: --to FILE")
            left = asyncio.run(
                run_export(settings, vault_for(settings), city, to, long_enough(secret))
            )
        except (CannotLeave, OSError) as error:
            stop(str(error))
        rows = sum(part.rows for part in left.manifest.parts)
        console.print(
            f"{city}: {rows} rows, {left.manifest.log_size} entries in its log: {escape(str(to))}"
        )
        console.print(f"It has moved: this time bank never serves {city} again.")
        if left.unsent:
            console.print(
                f"{left.unsent} events are still to be published: let the worker here run on."
            )

    @cli.command("import-city")
    def import_city(
        file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)], secret: Secret = ""
    ) -> None:
        """Take in a city from its package: all of it, checked, or nothing. Said again with the
        same package, it does nothing."""
        settings = read_settings()
        vault = vault_for(settings)
        try:
            package = open_package(file)
            done = asyncio.run(run_import(settings, vault, package, long_enough(secret)))
        except (WrongPackage, CannotArrive) as error:
            stop(str(error))
        except (KafkaError, TimeoutError) as error:
            stop(f"The broker does not answer, so what others hold is not known: {error!r}")
        city = package.manifest.city
        if done == "here before":
            console.print(f"{city} came with this very package before: nothing to do.")
            return
        console.print(f"{city} is here, all of it checked. Its log goes on from"
                      f" {package.manifest.log_size} entries.")  # fmt: skip
        if not settings.serves(city):
            console.print(f"Now add {city} to TIMEBANK_CITIES, and start the api and the worker.")

    @cli.command("rotate-key")
    def rotate_key(
        city: City,
        overlap_hours: Annotated[
            int,
            typer.Option(
                min=0,
                max=OVERLAP_HOURS,
                help="How long messages under the old key are still believed; 0, a minute, when"
                " somebody else may have it.",
            ),
        ] = OVERLAP_HOURS,
    ) -> None:
        """Give a city a new key. The old one signs that the new one follows, and is then gone."""
        settings = read_settings()
        vault = vault_for(settings)
        try:
            handover = asyncio.run(
                run_rotation(settings, vault, city, timedelta(hours=overlap_hours))
            )
        except NotHandedOver as error:
            stop(str(error))
        console.print(f"{city} has key {handover.number}: {handover.new_key.hex()}")
        console.print(f"It signs checkpoints from {handover.from_size} entries on.")
        until = handover.until.isoformat(timespec="seconds")
        console.print(f"Messages under the old key are believed until {until}.")

    @cli.command("lift-halt")
    def lift_halt(city: City) -> None:
        """Let a log sign again that was halted, once it holds all that others have of it."""
        settings = read_settings()
        try:
            asyncio.run(run_lift(settings, city))
        except (halting.StillHalted, LookupError) as error:
            stop(str(error.args[0]))
        except (KafkaError, TimeoutError) as error:
            stop(f"The broker does not answer, so what others hold is not known: {error!r}")


def long_enough(secret: str) -> str:
    if len(secret) < SECRET_MIN:
        stop(f"Set TIMEBANK_PACKAGE_SECRET, or --secret, of {SECRET_MIN} characters at least")
    return secret


@contextmanager
def counting() -> Iterator[Callable[[str, int], None]]:
    """Shows how many rows of which table are done."""
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed} rows"))
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def count(what: str, rows: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=None)
            bar.advance(tasks[what], rows)

        yield count


async def run_export(settings: Settings, vault: Vault, city: str, to: Path, secret: str) -> Left:
    dsn = settings.for_app().database_url.get_secret_value()
    with counting() as count:
        return await leave(
            dsn, vault, city, to, secret, package_id=new_id(), now=utc_now(), progress=count
        )


async def run_cancel(settings: Settings, city: str) -> None:
    async with transaction(settings) as conn:
        await cancel_leaving(conn, city, utc_now())


async def run_import(settings: Settings, vault: Vault, package: Package, secret: str) -> Arrived:
    """Raises CannotArrive, WrongPackage, or what the broker raises."""
    dsn = settings.for_app().database_url.get_secret_value()
    told = await recall.read_topics(settings)
    heard = recall.notes_of(told, package.manifest.city)
    with counting() as count:
        return await arrive(dsn, vault, package, secret, heard, now=utc_now(), progress=count)


async def run_rotation(
    settings: Settings, vault: Vault, city_id: str, overlap: timedelta
) -> Handover:
    async with transaction(settings) as conn:
        return await rotate(conn, vault, city_id, utc_now(), overlap)


async def run_lift(settings: Settings, city_id: str) -> None:
    """Raises StillHalted, LookupError, or what the broker raises."""
    async with transaction(settings) as conn:
        await show_halts(conn, city_id)
    told = await recall.read_topics(settings)
    async with transaction(settings) as conn:
        lifted = await halting.lift(conn, city_id, recall.notes_of(told, city_id), utc_now())
    console.print(
        f"The log of {city_id} holds the newest checkpoint known, of {lifted.size} entries,"
        f" signed by {', '.join(lifted.signed_by)}. It goes on."
    )


async def show_halts(conn: Conn, city_id: str) -> None:
    head = await log_store.find_head(conn, city_id)
    if head is None:
        raise LookupError(f"{city_id} has no log here")
    console.print(f"{city_id}: {head.size} entries; halted: {escape(head.halted or 'no')}")
    table = Table("when", "what", "why")
    for what, why, at in await cosigning_store.list_halts(conn, city_id):
        table.add_row(at.isoformat(timespec="seconds"), what, escape(why))
    console.print(table)
