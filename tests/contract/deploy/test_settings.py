"""Every setting, port, command and path that the deployment names exists in the code, and nothing
that the code needs is missing. The same names are given by `make up`."""

import importlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
import yaml
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from common.settings import ServiceSettings
from copass.network import OUTWARD, Broker, Network, Secrets, environment

ROOT = Path(__file__).resolve().parents[3]
SERVICES = ("identity", "timebank", "access", "places")
ALL = (*SERVICES, "portal")
PORTS = {"portal": 8000, "identity": 8001, "timebank": 8002, "access": 8003, "places": 8004}
WORKER_PORTS = {"identity": 8021, "timebank": 8022, "access": 8023, "places": 8024}
A_SECRET = "0123456789abcdef0123456789abcdef"
# Read by uvicorn, by the C library, and where …_CARD_KEYS refers to; not by a Settings class.
OTHERS = {"COPASS_CARD_KEYS", "FORWARDED_ALLOW_IPS", "MALLOC_ARENA_MAX", "PYTHONUNBUFFERED"}


@dataclass(frozen=True)
class Process:
    """One container of ours: where it is stated, its service, command and environment."""

    where: str
    service: str
    command: str
    env: dict[str, str]

    def __str__(self) -> str:
        return f"{self.where}:{self.service}-{self.command}"


def interpolated(value: Any) -> str:
    """`${NAME:-default}` → default, `${NAME:?…}` → a made-up secret, as compose would."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))
    return re.sub(r"\$\{\w+:\?[^}]*\}", A_SECRET, text)


def compose_processes() -> list[Process]:
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    found = []
    for spec in loaded["services"].values():
        service = spec["image"].partition(":")[0].removeprefix("copass/")
        if service in ALL:
            env = {name: interpolated(value) for name, value in spec["environment"].items()}
            found.append(Process("compose", service, spec["command"][0], env))
    return found


def kubernetes_processes() -> list[Process]:
    found = []
    for service in ALL:
        path = ROOT / f"deploy/k8s/{service}.yaml"
        docs = list(yaml.safe_load_all(path.read_text("utf-8")))
        maps = {d["metadata"]["name"]: d["data"] for d in docs if d["kind"] == "ConfigMap"}
        for doc in docs:
            if doc["kind"] not in ("Deployment", "Job"):
                continue
            (container,) = doc["spec"]["template"]["spec"]["containers"]
            assert container["image"] == f"copass/{service}"
            env: dict[str, str] = {}
            for source in container["envFrom"]:
                env |= maps[source["configMapRef"]["name"]]
            for variable in container["env"]:
                key = variable["valueFrom"]["secretKeyRef"]["key"]
                uri = f"postgresql://{service}:pw@{service}-db-rw:5432/{service}"
                env[variable["name"]] = uri if key == "uri" else A_SECRET
            found.append(Process("kubernetes", service, container["args"][0], env))
    return found


PROCESSES = [*compose_processes(), *kubernetes_processes()]
EVERY_PROCESS = pytest.mark.parametrize("process", PROCESSES, ids=str)


def settings_class(service: str) -> type[BaseSettings]:
    module = importlib.import_module(f"{service}.settings")
    (found,) = {
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, BaseSettings)
        and value not in (BaseSettings, ServiceSettings)
    }
    return found


def read(process: Process, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings as the process would read them."""
    for name in list(os.environ):
        if name.startswith(f"{process.service.upper()}_"):
            monkeypatch.delenv(name)
    for name, value in process.env.items():
        monkeypatch.setenv(name, value)
    return settings_class(process.service)()


def test_both_deployments_state_the_same_processes() -> None:
    expected = {("portal", "api")} | {
        (service, command) for service in SERVICES for command in ("migrate", "api", "worker")
    }
    for where in ("compose", "kubernetes"):
        stated = [(p.service, p.command) for p in PROCESSES if p.where == where]
        assert set(stated) == expected
        assert len(stated) == len(expected)


@EVERY_PROCESS
def test_every_variable_is_a_setting(process: Process) -> None:
    prefix = f"{process.service.upper()}_"
    fields = set(settings_class(process.service).model_fields)
    for name in process.env:
        if name not in OTHERS:
            assert name.startswith(prefix), name
            assert name.removeprefix(prefix).lower() in fields, name


@EVERY_PROCESS
def test_every_setting_without_a_default_is_given(process: Process) -> None:
    for name, field in settings_class(process.service).model_fields.items():
        if field.is_required() or field.get_default() is PydanticUndefined:
            assert f"{process.service}_{name}".upper() in process.env


@EVERY_PROCESS
def test_the_code_accepts_the_values(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(process, monkeypatch)
    # A container that listens on its own loopback is heard by nobody.
    assert settings.host == "0.0.0.0"
    assert settings.port == PORTS[process.service]
    if process.service != "portal":
        assert settings.worker_port == WORKER_PORTS[process.service]
        assert settings.kafka_idempotent is True
        assert settings.kafka_topic_prefix == ""


@EVERY_PROCESS
def test_the_command_exists(process: Process) -> None:
    module = importlib.import_module(f"{process.service}.__main__")
    apps = [value for value in vars(module).values() if isinstance(value, typer.Typer)]
    commands = {
        command.name or (command.callback.__name__ if command.callback else "")
        for app in apps
        for command in app.registered_commands
    }
    assert process.command in commands


@EVERY_PROCESS
def test_addresses_lead_to_the_ports_that_the_others_listen_on(process: Process) -> None:
    """`http://identity:8001` names a service of ours with its own port."""
    for name, value in process.env.items():
        parts = urlsplit(value)
        if parts.scheme == "http" and parts.hostname in PORTS:
            assert parts.port == PORTS[parts.hostname], name
        if name.endswith("_DATABASE_URL"):
            assert (parts.username, parts.path, parts.port) == (
                process.service,
                f"/{process.service}",
                5432,
            )
        if name.endswith("_JWKS_URL"):
            assert value == "http://identity:8001/.well-known/jwks.json"


def test_one_secret_is_one_secret_for_all_who_share_it() -> None:
    """Cards are known to identity and access by the same hash, tokens to all by one issuer."""
    for where in ("compose", "kubernetes"):
        issuers = {
            value
            for process in PROCESSES
            if process.where == where
            for name, value in process.env.items()
            if name.endswith("_TOKEN_ISSUER")
        }
        assert len(issuers) == 1
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    assert len(set(re.findall(r"_CARD_PEPPER: (\S+)", compose))) == 1
    kubernetes = "".join(
        (ROOT / f"deploy/k8s/{service}.yaml").read_text("utf-8") for service in SERVICES
    )
    keys = re.findall(r"_CARD_PEPPER\n\s+valueFrom: (.+)", kubernetes)
    assert set(keys) == {"{secretKeyRef: {name: copass-secrets, key: CARD_PEPPER}}"}


@pytest.mark.parametrize("service", ALL)
def test_make_up_gives_the_same_settings(service: str, tmp_path: Path) -> None:
    """The embedded network differs in what its broker cannot do, and in nothing else."""
    secrets = dict.fromkeys(Secrets.__dataclass_fields__, A_SECRET)
    embedded = set(environment(Network(tmp_path, 8000, Broker.apache), Secrets(**secrets), service))
    only_embedded = {
        f"{service}_KAFKA_IDEMPOTENT".upper(),
        f"{service}_KAFKA_FETCH_WAIT_MS".upper(),
    }
    clustered = {f"{service}_KAFKA_{name}".upper() for name in ("replication", "partitions")}
    # `make up` sends nothing out of the machine, unless these are exported to it.
    outward = {f"{service.upper()}{name}" for name in OUTWARD}
    for process in PROCESSES:
        if process.service == service:
            stated = set(process.env) - OTHERS
            assert embedded - OTHERS - only_embedded <= stated, str(process)
            allowed = outward | (clustered if process.where == "kubernetes" else set())
            assert stated - embedded - {f"{service}_HOST".upper()} <= allowed, str(process)


@pytest.mark.parametrize("service", SERVICES)
def test_the_documented_variables_exist(service: str) -> None:
    """docs/contracts.md lists what all four have in common."""
    text = (ROOT / "docs/contracts.md").read_text("utf-8")
    documented = {name.lower() for name in re.findall(r"`…_([A-Z_]+)`", text)} - {
        "card_pepper",
        "card_keys",
    }
    assert {"database_url", "kafka_bootstrap", "token_issuer"} <= documented
    assert documented <= set(settings_class(service).model_fields)


def test_the_proxy_knows_every_api_by_its_port() -> None:
    text = (ROOT / "deploy/proxy/haproxy.cfg").read_text("utf-8")
    servers = dict(re.findall(r"server \w+ (\w+):(\d+)", text))
    assert {name: int(port) for name, port in servers.items()} == PORTS
    binds = {int(port) for port in re.findall(r"bind :(\d+)", text)}
    assert binds == {*PORTS.values(), 8090}
