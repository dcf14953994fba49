"""What pairing leaves on the board: one file that its user alone can read."""

import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
KEY = re.compile(r"([0-9a-fA-F-]{36})\.([A-Za-z0-9_-]{16,200})")
DEFAULT_FOLDER = Path("/var/lib/copass-reader")


class BadConfig(ValueError):
    """The file is not what pairing writes."""


@dataclass(frozen=True, slots=True)
class Config:
    """`snapshot_key`: the Ed25519 key of the access service as it was when paired, in hex.

    `input`: `stdin`, `tcp:<port>`, `evdev:<device>`, `serial:<device>[@baud]`, `pcsc[:<reader>]`.
    `relay`: `simulated`, or `gpio:<chip>:<line>[:low]`. `exit_input`: of the button or reader
    inside, if there is one, written as `input`.
    """

    url: str
    reader_id: str
    secret: str
    door_id: str
    snapshot_key: str
    direction: str = "in"
    input: str = "stdin"
    exit_input: str = ""
    relay: str = "simulated"
    live_limit_ms: int = 400

    def __repr__(self) -> str:
        return f"Config(door_id={self.door_id!r}, …)"  # never the secret, whatever prints it

    @property
    def authorization(self) -> str:
        return f"Bearer {self.reader_id}.{self.secret}"


def read_key(text: str) -> tuple[str, str]:
    """Id and secret of a reader from `<reader_id>.<secret>`. Raises BadConfig."""
    match = KEY.fullmatch(text.strip())
    if match is None:
        raise BadConfig("a reader's key is <reader_id>.<secret>, as identity showed it once")
    return match[1].lower(), match[2]


def load_config(folder: Path) -> Config:
    """Raises BadConfig when there is none, or it was not written by pairing."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text())
        known = {field.name for field in fields(Config)}
        config = Config(**{name: value for name, value in values.items() if name in known})
        bytes.fromhex(config.snapshot_key)
    except FileNotFoundError:
        raise BadConfig(f"this board is not paired: {path} is not there") from None
    except (ValueError, TypeError, AttributeError):
        raise BadConfig(f"{path} is damaged: pair this board again") from None
    if not UUID.fullmatch(config.door_id) or config.direction not in ("in", "out"):
        raise BadConfig(f"{path} is damaged: pair this board again")
    return config


def make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def save_config(folder: Path, config: Config) -> None:
    make_folder(folder)
    write_file(folder / "config.json", json.dumps(asdict(config), indent=2).encode())


def write_file(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its user alone, so that a power cut leaves the old
    or the new one. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
