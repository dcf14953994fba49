"""copass-gateway: run | check | acl."""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from copass_edge.gateway import rights, running
from copass_edge.gateway.settings import ConfigError, load_config

app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)
console = Console()

ConfigFile = Annotated[Path, typer.Option("--config", help="The TOML file; see docs/readers.md.")]


@app.command("run")
def run_command(
    config: ConfigFile,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Speak to the configured devices until stopped."""
    logging.basicConfig(
        level=log_level.upper(),
        stream=sys.stdout,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    for noisy in ("httpx", "httpcore", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel("WARNING")
    try:
        asyncio.run(running.run(running.build(load_config(config), config.parent)))
    except ConfigError as error:
        raise fault(error) from error


@app.command("check")
def check_command(config: ConfigFile) -> None:
    """Read the configuration and every secret that it names, and list the devices."""
    try:
        gateway = running.build(load_config(config), config.parent)
        running.make_password(gateway.config)
    except ConfigError as error:
        raise fault(error) from error
    table = Table("device", "door", "direction")
    for point in gateway.points:
        table.add_row(point.name, point.door_id, point.direction)
    console.print(table)


@app.command("acl")
def acl_command(config: ConfigFile) -> None:
    """Print the acl_file of mosquitto for these devices."""
    try:
        typer.echo(rights.mosquitto_acl(rights.grants(load_config(config))))
    except ConfigError as error:
        raise fault(error) from error


def fault(error: ConfigError) -> typer.Exit:
    Console(stderr=True).print(str(error), style="red", markup=False)
    return typer.Exit(1)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
