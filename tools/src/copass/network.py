"""What runs on this machine: folders, ports, secrets, and the environment of every process."""

import errno
import json
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from copass.processes import Program, StartError
from copass.servers import HOST

REPOSITORY = Path(__file__).parents[3]
SERVICES = ("identity", "timebank", "access", "places")  # each has api, worker and database
OUTWARD = ("_SMTP_URL", "_SMTP_PASSWORD", "_MAIL_FROM", "_PUSH_CONTACT")
PORT_BASE = 8000
PORT_BASE_MAX = 65_000


class Broker(StrEnum):
    tansu = "tansu"
    apache = "apache"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of docs/contracts.md, from a base."""

    base: int

    def api(self, service: str) -> int:
        return self.base + ("portal", *SERVICES).index(service)

    def worker(self, service: str) -> int:
        return self.base + 21 + SERVICES.index(service)

    @property
    def postgres(self) -> int:
        return self.base + 10

    @property
    def valkey(self) -> int:
        return self.base + 11

    @property
    def kafka(self) -> int:
        return self.base + 12

    @property
    def kafka_controller(self) -> int:
        return self.base + 13

    def all(self, broker: Broker, *, portal: bool) -> dict[int, str]:
        """Every port that is listened on, and by which process of ours."""
        apis = (*(("portal",) if portal else ()), *SERVICES)
        ports = {self.api(name): f"{name}-api" for name in apis}
        ports |= {self.worker(name): f"{name}-worker" for name in SERVICES}
        ports |= {self.postgres: "postgres", self.valkey: "valkey", self.kafka: "kafka"}
        if broker is Broker.apache:
            ports[self.kafka_controller] = "kafka (controller)"
        return ports


CARD_KEYS = "card-keys.json"
ADDED_LATER = frozenset({"timebank_key_secret", "access_key_secret"})


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made once, at the first start."""

    postgres: str
    identity: str
    timebank: str
    access: str
    places: str
    card_pepper: str
    key_secret: str
    timebank_key_secret: str
    access_key_secret: str
    session_secret: str

    def database_password(self, service: str) -> str:
        return str(getattr(self, service))


@dataclass(frozen=True, slots=True)
class Network:
    """One network: its state folder, its ports, its broker."""

    home: Path
    port_base: int
    broker: Broker

    @property
    def ports(self) -> Ports:
        return Ports(self.port_base)

    @property
    def run_file(self) -> Path:
        return self.home / "run.json"

    @property
    def card_keys(self) -> Path:
        return self.home / CARD_KEYS

    def log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    @property
    def postgres_folder(self) -> Path:
        return self.home / "postgres"

    def api_url(self, service: str) -> str:
        return f"http://{HOST}:{self.ports.api(service)}"

    def worker_url(self, service: str) -> str:
        return f"http://{HOST}:{self.ports.worker(service)}"

    @property
    def redis_url(self) -> str:
        return f"redis://{HOST}:{self.ports.valkey}/0"

    @property
    def kafka_bootstrap(self) -> str:
        return f"{HOST}:{self.ports.kafka}"

    def database_url(self, service: str, keys: Secrets) -> str:
        password = keys.database_password(service)
        return f"postgresql://{service}:{password}@{HOST}:{self.ports.postgres}/{service}"


def state_folder() -> Path:
    """COPASS_HOME, else .copass in the clone."""
    return Path(os.environ.get("COPASS_HOME") or REPOSITORY / ".copass").expanduser().resolve()


def network_from_environment(*, port_base: int | None = None, broker: str | None = None) -> Network:
    """COPASS_HOME, COPASS_PORT_BASE, KAFKA. Raises StartError when one makes no sense."""
    given = port_base if port_base is not None else os.environ.get("COPASS_PORT_BASE") or PORT_BASE
    try:
        base = int(given)
    except ValueError:
        base = 0
    if not 1024 <= base <= PORT_BASE_MAX:
        raise StartError(f"COPASS_PORT_BASE={given}: must be a number from 1024 to {PORT_BASE_MAX}")
    name = broker or os.environ.get("KAFKA") or Broker.tansu
    if name not in list(Broker):
        raise StartError(f"KAFKA={name}: must be one of {', '.join(Broker)}")
    return Network(state_folder(), base, Broker(name))


def has_portal() -> bool:
    return find_spec("portal") is not None and find_spec("portal.__main__") is not None


def write_atomically(path: Path, text: str) -> None:
    """The whole file or none, readable by its owner only. Raises StartError on a full disk."""
    making = path.with_name(path.name + ".making")
    try:
        descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        making.replace(path)
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> StartError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StartError(f"the disk is full: {path} cannot be written; free some space")
    return StartError(f"{path} cannot be written: {error.strerror}")


def load_or_make_secrets(home: Path) -> Secrets:
    """The network's secrets. Raises StartError when the file is there and cannot be used."""
    make_card_keys(home / CARD_KEYS)
    path = home / "secrets.json"
    names = [field.name for field in fields(Secrets)]
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            if (missing := set(names) - set(known)) and missing <= ADDED_LATER:
                # A network made before these secrets were: nothing is sealed with them yet.
                known |= {name: secrets.token_hex(24) for name in sorted(missing)}
                write_atomically(path, json.dumps(known, indent=1) + "\n")
            if not all(isinstance(known[name], str) and known[name] for name in names):
                raise ValueError("a secret is empty")
            return Secrets(**{name: known[name] for name in names})
        except (ValueError, KeyError, TypeError) as error:
            raise StartError(
                f"{path} cannot be read ({error!r}); `make clean-data` begins afresh"
            ) from error
    made = Secrets(**{name: secrets.token_hex(24) for name in names})
    write_atomically(path, json.dumps(asdict(made), indent=1) + "\n")
    return made


def make_card_keys(path: Path) -> None:
    """The keys of cryptographic cards, unless they are there: a card knows no others."""
    if not path.exists():
        made = {"meta": secrets.token_hex(16), "master": secrets.token_hex(16)}
        write_atomically(path, json.dumps([made]) + "\n")


def environment(network: Network, keys: Secrets, service: str) -> dict[str, str]:
    """The settings of one service, as docs/contracts.md names them."""
    identity = network.api_url("identity")
    common = {
        # Python's memory arenas multiply with threads; a small machine has better uses.
        "MALLOC_ARENA_MAX": "2",
        "PYTHONUNBUFFERED": "1",
    }
    if service == "portal":
        urls = {f"{name.upper()}_URL": network.api_url(name) for name in SERVICES}
        own = {
            "PORT": str(network.ports.api("portal")),
            "PUBLIC_URL": network.api_url("portal"),
            "SESSION_SECRET": keys.session_secret,
            **urls,
        }
        return common | {f"PORTAL_{name}": value for name, value in own.items()}
    apache = network.broker is Broker.apache
    own = {
        "HOST": HOST,
        "PORT": str(network.ports.api(service)),
        "WORKER_PORT": str(network.ports.worker(service)),
        "DATABASE_URL": network.database_url(service, keys),
        "KAFKA_BOOTSTRAP": network.kafka_bootstrap,
        # Tansu refuses the idempotent producer, and answers a waiting fetch only when it ends.
        "KAFKA_IDEMPOTENT": "true" if apache else "false",
        "KAFKA_FETCH_WAIT_MS": "500" if apache else "200",
        "TOKEN_ISSUER": identity,
        "JWKS_URL": f"{identity}/.well-known/jwks.json",
    }
    if service in ("identity", "access"):
        own["CARD_PEPPER"] = keys.card_pepper
        own["CARD_KEYS"] = f"file:{network.card_keys}"
    if service == "identity":
        own["KEY_SECRET"] = keys.key_secret
        own["PORTAL_URL"] = network.api_url("portal")
    if service == "timebank":
        own["KEY_SECRET"] = keys.timebank_key_secret
    if service == "access":
        own["REDIS_URL"] = network.redis_url
        own["KEY_SECRET"] = keys.access_key_secret
        if not apache:
            # A blocked card waits for this; each fetch costs both sides a little all day long.
            own["PROJECTION_FETCH_WAIT_MS"] = "20"
    # What the person exported wins over our defaults: PLACES_LOG_LEVEL=DEBUG make up. E-mail and
    # web push leave the machine, so they are on only when asked for.
    passed = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(f"{service.upper()}_")
        and name.endswith(("_LOG_LEVEL", "_OTLP_ENDPOINT", *OUTWARD))
    }
    return common | {f"{service.upper()}_{name}": value for name, value in own.items()} | passed


def python(
    network: Network,
    keys: Secrets,
    service: str,
    *command: str,
    name: str,
    extra: Mapping[str, str] | None = None,
) -> Program:
    """`python -m SERVICE COMMAND…` with its settings and its log."""
    return Program(
        name=name,
        command=(sys.executable, "-m", service, *command),
        log=network.log(name),
        environment=environment(network, keys, service) | dict(extra or {}),
        folder=network.home,
    )
