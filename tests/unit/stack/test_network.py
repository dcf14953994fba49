"""The settings that the stack gives are those that the services take."""

import json
import os
import stat
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from copass.network import (
    SERVICES,
    Broker,
    Network,
    Ports,
    environment,
    load_or_make_secrets,
    network_from_environment,
)
from copass.processes import StartError


def settings_class(service: str) -> type[BaseSettings]:
    """The class in the service's settings module that begins its variables with its name."""
    module = import_module(f"{service}.settings")
    (found,) = [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and issubclass(one, BaseSettings)
        and one.model_config.get("env_prefix") == f"{service.upper()}_"
    ]
    return found


@pytest.mark.parametrize("broker", list(Broker))
@pytest.mark.parametrize("service", [*SERVICES, "portal"])
def test_every_service_accepts_the_settings_it_is_given(
    service: str, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tmp_path, 9000, broker)
    given = environment(network, load_or_make_secrets(tmp_path), service)
    for name in list(os.environ):
        if name.startswith(f"{service.upper()}_"):
            monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = settings_class(service)()
    known = {name.upper() for name in type(settings).model_fields}
    prefix = f"{service.upper()}_"
    named = {name.removeprefix(prefix) for name in given if name.startswith(prefix)}
    assert named <= known
    assert settings.port == Ports(9000).api(service)


def test_the_ports_are_those_of_the_contract() -> None:
    assert Ports(8000).all(Broker.tansu, portal=True) == {
        8000: "portal-api",
        8001: "identity-api",
        8002: "timebank-api",
        8003: "access-api",
        8004: "places-api",
        8010: "postgres",
        8011: "valkey",
        8012: "kafka",
        8021: "identity-worker",
        8022: "timebank-worker",
        8023: "access-worker",
        8024: "places-worker",
    }


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    first = load_or_make_secrets(tmp_path)
    assert load_or_make_secrets(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    values = json.loads((tmp_path / "secrets.json").read_text()).values()
    assert len(set(values)) == len(values)
    assert all(len(value) >= 32 for value in values)


def test_a_network_of_before_gets_the_secret_that_came_later(tmp_path: Path) -> None:
    first = asdict(load_or_make_secrets(tmp_path))
    del first["timebank_key_secret"]
    (tmp_path / "secrets.json").write_text(json.dumps(first))
    later = load_or_make_secrets(tmp_path)
    assert {name: asdict(later)[name] for name in first} == first
    assert load_or_make_secrets(tmp_path) == later


@pytest.mark.parametrize("text", ["", "{", "{}", '{"postgres": ""}', "[]"])
def test_secrets_that_cannot_be_read_are_not_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "secrets.json").write_text(text)
    with pytest.raises(StartError, match=r"secrets\.json cannot be read"):
        load_or_make_secrets(tmp_path)
    assert (tmp_path / "secrets.json").read_text() == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COPASS_PORT_BASE", "abc"),
        ("COPASS_PORT_BASE", "80"),
        ("COPASS_PORT_BASE", "65500"),
        ("KAFKA", "rabbit"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartError, match=f"{name}={value}"):
        network_from_environment()
