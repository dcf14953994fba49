"""`python -m portal api`."""

import typer
import uvicorn

from common import logging
from portal.settings import PortalSettings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False)

KEEP_ALIVE_S = 30
DRAIN_S = 8


@app.callback()
def portal() -> None:
    """The web pages of the network."""


@app.command("api")
def api_command() -> None:
    """Serve the pages until stopped."""
    settings = PortalSettings()
    logging.configure(settings.service, settings.log_level)
    uvicorn.run(
        "portal.app:from_environment",
        factory=True,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )


if __name__ == "__main__":
    app()
