"""`python -m places migrate | api | worker | import | export | dead-letters`."""

from common.cli import service_cli
from places.app import MIGRATIONS, work
from places.importing.command import export_command, import_command
from places.settings import PlacesSettings


def read_settings() -> PlacesSettings:
    return PlacesSettings()


app = service_cli(
    read_settings, api="places.app:from_environment", worker=work, migrations=MIGRATIONS
)
app.command("import")(import_command)
app.command("export")(export_command)

if __name__ == "__main__":
    app()
