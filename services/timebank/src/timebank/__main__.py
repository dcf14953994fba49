"""`python -m timebank migrate | api | worker | verify-books | dead-letters`."""

import asyncio
from pathlib import Path

import typer

from common.cli import console, service_cli
from timebank import app, verify
from timebank.settings import read_settings

MIGRATIONS = Path(__file__).parent / "migrations"

cli = service_cli(
    read_settings, api="timebank.app:create_app", worker=app.run, migrations=MIGRATIONS
)


@cli.command("verify-books")
def verify_books() -> None:
    """Recompute every balance from the postings. Exit code 1 when anything differs."""
    settings = read_settings().for_app()
    reports = asyncio.run(verify.verify_books(settings.database_url.get_secret_value()))
    verify.show(reports, console)
    if not all(report.sound for report in reports):
        raise typer.Exit(1)


if __name__ == "__main__":
    cli()
