"""`copass contracts`: write what each service serves as OpenAPI into `contracts/openapi`."""

import importlib
import inspect
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from rich.console import Console

from common.settings import ServiceSettings

SERVICES = ("identity", "timebank", "access", "places")
FOLDER = Path(__file__).parents[3] / "contracts" / "openapi"
# Long enough for any secret; nothing is connected to while the document is made.
PLACEHOLDER = "placeholder-of-more-than-thirty-two-characters"

console = Console()


def placeholder(field: FieldInfo) -> Any:
    """A value that lets a settings class be made where nothing is served."""
    if field.annotation is int:
        return 1
    return SecretStr(PLACEHOLDER) if field.annotation is SecretStr else PLACEHOLDER


def settings_class(service: str) -> type[ServiceSettings]:
    """The one settings class of a service."""
    module = importlib.import_module(f"{service}.settings")
    for _, member in inspect.getmembers(module, inspect.isclass):
        if issubclass(member, ServiceSettings) and member is not ServiceSettings:
            return member
    raise LookupError(f"{service}.settings has no settings class")


def openapi(service: str) -> bytes:
    """The OpenAPI document of a service, in a stable order."""
    cls = settings_class(service)
    values = {
        name: placeholder(field) for name, field in cls.model_fields.items() if field.is_required()
    }
    app = importlib.import_module(f"{service}.app").create_app(cls(**values))
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(app.openapi(), option=options)


def stale() -> list[str]:
    """The services whose committed document is not what they serve."""
    return [
        service
        for service in SERVICES
        if not (FOLDER / f"{service}.json").exists()
        or (FOLDER / f"{service}.json").read_bytes() != openapi(service)
    ]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""

    @app.command("contracts")
    def contracts_command(
        check: Annotated[bool, typer.Option("--check", help="Only say what is stale.")] = False,
    ) -> None:
        """Generate the OpenAPI documents of the services."""
        if check:
            old = stale()
            for service in old:
                console.print(f"contracts/openapi/{service}.json is stale: run `make contracts`")
            raise typer.Exit(1 if old else 0)
        FOLDER.mkdir(parents=True, exist_ok=True)
        for service in SERVICES:
            (FOLDER / f"{service}.json").write_bytes(openapi(service))
            console.print(f"wrote contracts/openapi/{service}.json")
