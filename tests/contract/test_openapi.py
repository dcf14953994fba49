"""The committed OpenAPI documents are those that the services serve, and each route is complete."""

import orjson
import pytest

from copass import contracts

COMMANDS = ("post", "put", "patch", "delete")
# Reads in the clothes of a command; the token endpoint, whose repeats RFC 6749 defines; taps, which
# have their tap_id; and what a reader says of itself, of which only the last word counts.
WITHOUT_KEY = {
    "/v1/oauth/token",
    "/v1/oauth/revoke",
    "/v1/taps",
    "/v1/taps/batch",
    "/v1/names",
    "/v1/places/{place_id}/names-inside",
    "/v1/doors/{door_id}/card-keys",
    "/v1/taps/stored",
    "/v1/readers/self/health",
}


@pytest.mark.parametrize("service", contracts.SERVICES)
def test_the_document_is_current(service: str) -> None:
    committed = (contracts.FOLDER / f"{service}.json").read_bytes()
    assert committed == contracts.openapi(service), "stale: run `make contracts`"


@pytest.mark.parametrize("service", contracts.SERVICES)
def test_each_command_takes_an_idempotency_key(service: str) -> None:
    document = orjson.loads((contracts.FOLDER / f"{service}.json").read_bytes())
    for path, operations in document["paths"].items():
        for method in COMMANDS:
            if method not in operations or path in WITHOUT_KEY:
                continue
            headers = {
                parameter["name"].lower()
                for parameter in operations[method].get("parameters", [])
                if parameter["in"] == "header"
            }
            assert "idempotency-key" in headers, f"{method} {path}"


@pytest.mark.parametrize("service", contracts.SERVICES)
def test_each_route_says_what_it_does(service: str) -> None:
    document = orjson.loads((contracts.FOLDER / f"{service}.json").read_bytes())
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path} has no description"
