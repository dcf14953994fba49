"""`python -m access migrate | api | worker | rebuild | dead-letters …`"""

import asyncio
from pathlib import Path

from rich.console import Console

from access.app import worker
from access.redis_pipe import RedisPipe
from access.settings import Settings
from common.cli import service_cli

cli = service_cli(
    Settings,
    api="access.app:api",
    worker=worker,
    migrations=Path(__file__).parent / "migrations",
)


@cli.command("rebuild")
def rebuild_command() -> None:
    """Make the worker read the state topics again from the beginning. Taps wait meanwhile."""
    asyncio.run(forget_generation(Settings()))
    Console().print("the worker starts again within seconds")


async def forget_generation(settings: Settings) -> None:
    pipe = RedisPipe(settings.redis_url.get_secret_value())
    try:
        await pipe.call("DEL", "projection:ready", "projection:generation")
    finally:
        await pipe.close()


if __name__ == "__main__":
    cli()
