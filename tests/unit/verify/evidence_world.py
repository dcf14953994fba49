"""Two cities with books, keys and messages, and the bundles that they, or a forger, make."""

import base64
import json
import zipfile
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from copass_verify.bundle import FORMAT, README
from copass_verify.checkpoints import Checkpoint
from copass_verify.merkle import hash_leaf, root_of
from copass_verify.messages import signed_bytes
from copass_verify.notes import Signer, format_note, to_signer

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def uuid_of(name: str) -> str:
    digits = sha256(name.encode()).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))


def account(name: str) -> str:
    return sha256(name.encode()).hexdigest()[:32]


def dumps(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@dataclass
class City:
    """A city that writes its book; `notes` are the checkpoints that it signed."""

    name: str
    signer: Signer
    cosigner: Signer
    entries: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, seed: int = 1) -> "City":
        raw = sha256(f"{name} {seed}".encode()).digest()
        origin = f"copass/{name}"
        return cls(name, to_signer(origin, raw), to_signer(origin, raw, cosigns=True))

    def post(self, kind: str, *lines: tuple[str, int], **more: Any) -> dict[str, Any]:
        """Lines as ("anna", -30), and ("in_transit:bourges", 30) for accounts of nobody."""
        index = len(self.entries)
        entry = {
            "version": 1,
            "city": self.name,
            "index": index,
            "transfer": uuid_of(f"{self.name} {index}"),
            "kind": kind,
            "posted_at": (NOW + timedelta(seconds=index)).isoformat(),
            "lines": [write_line(f"{self.name} {name}", name, minutes) for name, minutes in lines],
            **more,
        }
        self.entries.append(entry)
        return entry

    def leaves(self) -> list[bytes]:
        return [hash_leaf(dumps(entry)) for entry in self.entries]

    def sign(self, after: float = 3600, by: Signer | None = None) -> None:
        """Sign how far the book has come, `after` so many seconds."""
        text = str(
            Checkpoint(
                f"copass/{self.name}",
                len(self.entries),
                root_of(self.leaves()),
                (f"time {int(NOW.timestamp() + after)}",),
            )
        )
        self.notes.append(format_note(text, [(by or self.signer).sign(text)]))

    def say(self, to: str, kind: str, transfer: str) -> dict[str, Any]:
        message: dict[str, Any] = {
            "version": 1,
            "message_id": uuid_of(f"{self.name} says {kind} {transfer}"),
            "from_city": self.name,
            "to_city": to,
            "sent_at": NOW.isoformat(),
            "body": {"kind": kind, "transfer_id": transfer},
        }
        signature = self.signer.private_key.sign(signed_bytes(message))
        return {**message, "signature": base64.b64encode(signature).decode()}

    def copy(self) -> "City":
        return City(
            self.name, self.signer, self.cosigner,
            deepcopy(self.entries), list(self.notes), deepcopy(self.messages),
        )  # fmt: skip


def write_line(whole_name: str, name: str, minutes: int) -> dict[str, Any]:
    kind, _, peer = name.partition(":")
    line: dict[str, Any] = {"account": account(whole_name), "minutes": minutes}
    if kind in ("commons", "solidarity_fund", "in_transit", "clearing"):
        line["is"] = kind
        if peer:
            line["peer"] = peer
    elif minutes < 0:
        line["floor"] = -600
    return line


def crossing(name: str, step: str, peer: str, minutes: int) -> dict[str, Any]:
    return {"clearing": {"id": uuid_of(name), "step": step, "peer": peer, "minutes": minutes}}


def two_cities() -> tuple[City, City]:
    """Nantes sends 40 minutes, which arrive, and 25, which come back; and life within goes on."""
    nantes, bourges = City.of("nantes"), City.of("bourges")
    nantes.post("transfer", ("anna", -30), ("bruno", 30))
    nantes.post("contribution", ("commons", -50), ("anna", 50))
    nantes.post(
        "departure", ("anna", -40), ("in_transit:bourges", 40),
        **crossing("one", "departure", "bourges", 40),
    )  # fmt: skip
    nantes.sign()
    bourges.post("transfer", ("chloe", -5), ("didier", 5))
    bourges.post(
        "arrival", ("clearing:nantes", -40), ("chloe", 40),
        **crossing("one", "arrival", "nantes", 40),
    )  # fmt: skip
    bourges.sign()
    bourges.post("transfer", ("chloe", -7), ("didier", 7))
    bourges.sign()
    nantes.post(
        "settlement", ("in_transit:bourges", -40), ("clearing:bourges", 40),
        **crossing("one", "settlement", "bourges", 40),
    )  # fmt: skip
    nantes.post(
        "departure", ("bruno", -25), ("in_transit:bourges", 25),
        **crossing("two", "departure", "bourges", 25),
    )  # fmt: skip
    nantes.post(
        "return", ("in_transit:bourges", -25), ("bruno", 25),
        **crossing("two", "return", "bourges", 25),
    )  # fmt: skip
    nantes.post("reversal", ("bruno", -30), ("anna", 30), reverses=nantes.entries[0]["transfer"])
    nantes.sign()
    nantes.messages = [
        bourges.say("nantes", "accepted", uuid_of("one")),
        bourges.say("nantes", "rejected", uuid_of("two")),
    ]
    return nantes, bourges


def write(path: Path, *cities: City, leaves: dict[str, list[bytes]] | None = None) -> Path:
    """`leaves`: what stands beside the entries, where it is not what they hash to."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README.txt", README)
        about = {"format": FORMAT, "made_at": NOW.isoformat(), "cities": [c.name for c in cities]}
        archive.writestr("bundle.json", json.dumps(about))
        archive.writestr("cosigners.txt", "".join(f"{c.cosigner.verifier}\n" for c in cities))
        for city in cities:
            folder = f"cities/{city.name}"
            hashes = (leaves or {}).get(city.name, city.leaves())
            archive.writestr(f"{folder}/keys.txt", f"{city.signer.verifier}\n")
            archive.writestr(f"{folder}/checkpoints.jsonl", to_lines(map(json.dumps, city.notes)))
            archive.writestr(
                f"{folder}/entries.jsonl",
                b"".join(dumps(entry) + b"\n" for entry in city.entries),
            )
            archive.writestr(f"{folder}/leaves.bin", b"".join(hashes))
            archive.writestr(f"{folder}/messages.jsonl", to_lines(map(json.dumps, city.messages)))
    return path


def to_lines(items: Any) -> str:
    return "".join(f"{item}\n" for item in items)
