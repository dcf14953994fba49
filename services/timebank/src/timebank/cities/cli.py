"""The commands for a whole city. Each says what it did, or why not; exit code 1 when not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, NoReturn

import typer
from aiokafka.errors import KafkaError
from rich.markup import escape
from rich.table import Table

from common import db
from common.cli import console
from common.clock import utc_now
from common.db import Conn
from timebank.app import vault_of
from timebank.clearing.handover import Handover
from timebank.clearing.keys import Vault
from timebank.clearing.rotation import NotHandedOver, rotate
from timebank.log import cosigning_store, halting, recall
from timebank.log import store as log_store
from timebank.settings import Settings

OVERLAP_HOURS = 168

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
    @cli.command("rotate-key")
    def rotate_key(
        city: City,
        overlap_hours: Annotated[
            int,
            typer.Option(
                min=0,
                max=OVERLAP_HOURS,
                help="How long messages under the old key are still believed; 0 when somebody else"
                " may have it.",
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
