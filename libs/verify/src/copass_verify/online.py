"""A running federation: its bundles are fetched, and the logs as they are now held against them.

Servers are asked and not believed: all that they say is verified like a file, and a log that was
fetched must go on to the checkpoint that is shown now.
"""

import base64
import binascii
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from copass_verify.bundle import Bundle
from copass_verify.checkpoints import WrongCheckpoint
from copass_verify.crossings import Fault
from copass_verify.merkle import WrongProof, verify_consistency
from copass_verify.notes import NOTE_BYTES_MAX, WrongNote
from copass_verify.signed import Seen, opener
from copass_verify.trust import Trust

TIMEOUT_S = 60
PIECE_BYTES = 1 << 16
BUNDLE_BYTES_MAX = 10_000_000_000
PROOF_BYTES_MAX = 100_000
TOKEN_SAFE = ("127.0.0.1", "localhost", "::1")


class NoAnswer(Exception):
    """A server does not say what it was asked; the message says why."""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token goes to the address that was given, and to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


OPENER = urllib.request.build_opener(NoRedirect)


@dataclass(frozen=True, slots=True)
class Server:
    """A time bank. `url`: http(s)://host[:port][/path], without /v1."""

    url: str
    token: str | None

    def get(self, path: str, most: int, **query: str | int) -> bytes:
        """A small answer. Raises NoAnswer."""
        with closing(self.open(path, **query)) as answer:
            content = read(answer, most + 1, self.url)
        if len(content) > most:
            raise NoAnswer(f"{self.url}: the answer of {path} is too long")
        return content

    def fetch(self, to: Path, most: int = BUNDLE_BYTES_MAX) -> None:
        """The evidence of all its cities, into a file. Raises NoAnswer, and OSError of the file."""
        with closing(self.open("log/bundle")) as answer, to.open("wb") as file:
            left = most
            while piece := read(answer, min(left + 1, PIECE_BYTES), self.url):
                left -= len(piece)
                if left < 0:
                    raise NoAnswer(f"{self.url}: its bundle is larger than {most} bytes")
                file.write(piece)

    def open(self, path: str, **query: str | int) -> IO[bytes]:
        told = f"?{urllib.parse.urlencode(query)}" if query else ""
        request = urllib.request.Request(f"{self.url}/v1/{path}{told}")  # noqa: S310  parse_server
        request.add_header("User-Agent", "copass-verify")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            opened: IO[bytes] = OPENER.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise NoAnswer(f"{self.url}: {path} answered {error.code}") from error
        except (OSError, HTTPException) as error:
            raise NoAnswer(f"{self.url}: {path}: {error}") from error
        return opened


def read(answer: IO[bytes], most: int, url: str) -> bytes:
    try:
        return answer.read(most)
    except (OSError, HTTPException) as error:
        raise NoAnswer(f"{url}: the answer broke off: {error}") from error


def is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def parse_server(text: str, token: str | None) -> Server:
    """Raises NoAnswer for an address that nothing should be asked of."""
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise NoAnswer(f"{text} is no address of a time bank")
    if token and parts.scheme == "http" and parts.hostname not in TOKEN_SAFE:
        raise NoAnswer(f"{text}: a token is not sent without https")
    return Server(text.rstrip("/").removesuffix("/v1"), token)


def check_live(
    server: Server, bundle: Bundle, last: Mapping[str, Seen], trust: Trust
) -> list[Fault]:
    """What is wrong between a bundle that was fetched and what the server shows now. `last`: of
    each city, the last checkpoint in the bundle."""
    faults = []
    for files in bundle.cities:
        before = last.get(files.city)
        if before is None:
            continue
        try:
            check_city(server, files.city, before, trust)
        except (NoAnswer, WrongNote, WrongCheckpoint) as error:
            faults.append(Fault(files.city, None, None, f"its log now: {error}"))
        except WrongProof as error:
            what = f"two histories: its log now does not go on from what it showed: {error}"
            faults.append(Fault(files.city, None, None, what))
    return faults


def check_city(server: Server, city: str, before: Seen, trust: Trust) -> None:
    """Raises NoAnswer, WrongNote, WrongCheckpoint and WrongProof."""
    raw = server.get(f"log/{city}/checkpoint", NOTE_BYTES_MAX)
    now = opener(trust.logs[city], trust.cosigners, server.url)(raw).checkpoint
    old = before.checkpoint
    if now.size < old.size:
        raise WrongProof(f"it has {now.size} entries, and had {old.size}")
    proof: list[bytes] = []
    if now.size > old.size:
        path = f"log/{city}/consistency"
        proof = read_proof(
            server.get(path, PROOF_BYTES_MAX, **{"from": old.size, "to": now.size}), server.url
        )
    verify_consistency(old.size, now.size, old.root, now.root, proof)


def read_proof(raw: bytes, url: str) -> list[bytes]:
    try:
        return [base64.b64decode(item, validate=True) for item in json.loads(raw)["proof"]]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise NoAnswer(f"{url}: the consistency proof cannot be read") from error
