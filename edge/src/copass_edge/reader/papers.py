"""The snapshot of this door: fetched, checked, kept on disk, and never replaced by an older one."""

import base64
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from copass_edge.reader.config import Config, write_file
from copass_edge.reader.credentials import Secrets
from copass_tap.decision import Door
from copass_tap.documents import read_door
from copass_tap.snapshots import BadPaper, Snapshot, read_snapshot

OFFLINE_SECRETS = "copass reader offline secrets v1"
CARD_KEY = "copass reader card key v1"
NONCE_BYTES = 12
KEY_BYTES = 32
# A snapshot may be from a service whose clock is so far ahead.
FUTURE_MAX_S = 300


@dataclass(frozen=True, slots=True)
class Held:
    """The snapshot in use. `secrets` is None where the service gives none."""

    snapshot: Snapshot
    door: Door
    secrets: Secrets | None
    etag: str


class Papers:
    """Keeps the newest snapshot in a file beside the journal."""

    def __init__(self, folder: Path, config: Config) -> None:
        self._path = folder / "snapshot"
        self._config = config
        self.key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(config.snapshot_key))
        self.held: Held | None = None

    def load(self) -> None:
        """Take up what is on the disk. What cannot be believed any more is left where it is, and a
        door without a snapshot decides nothing alone. Raises BadPaper then."""
        if not self._path.exists():
            return
        etag, _, packed = self._path.read_bytes().partition(b"\n")
        try:
            raw = zlib.decompress(packed)
        except zlib.error:
            raise BadPaper("the snapshot on this disk is damaged") from None
        self.held = self._check(raw, etag.decode("ascii", "replace"))

    def install(self, raw: bytes, etag: str, now: float) -> Held:
        """Check a snapshot from the service and keep it. Raises BadPaper for one that is not
        signed, not this door's or reader's, from the future, or older than the one in use."""
        held = self._check(raw, etag)
        issued_at = held.snapshot.header.issued_at
        if issued_at > now + FUTURE_MAX_S:
            raise BadPaper("the snapshot is from the future")
        if self.held is not None and issued_at < self.held.snapshot.header.issued_at:
            raise BadPaper("the snapshot is older than the one in use")
        write_file(self._path, etag.encode() + b"\n" + zlib.compress(raw, 1))
        self.held = held
        return held

    def _check(self, raw: bytes, etag: str) -> Held:
        snapshot = read_snapshot(raw, self.key)
        header = snapshot.header
        if header.door_id != self._config.door_id or header.reader_id != self._config.reader_id:
            raise BadPaper("the snapshot is another door's or another reader's")
        try:
            door = read_door(header.door_id, header.place_id, header.policy_version, header.policy)
            secrets = self._open_secrets(header.sealed) if header.sealed else None
        except (KeyError, TypeError, ValueError) as error:
            raise BadPaper(f"the snapshot has another shape: {error}") from None
        return Held(snapshot, door, secrets, etag)

    def _open_secrets(self, sealed: str) -> Secrets:
        values = json.loads(unseal(self._config.secret, sealed, OFFLINE_SECRETS))
        return Secrets(
            values["pepper"].encode(), tuple(bytes.fromhex(one) for one in values["meta"])
        )


def unseal(reader_secret: str, sealed: str, purpose: str) -> bytes:
    """What the service sealed for this reader: AES-256-GCM under a key that follows from the
    reader's secret (HKDF, SHA-256). Raises ValueError when it cannot be opened."""
    hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode())
    raw = base64.b64decode(sealed)
    try:
        return AESGCM(hkdf.derive(reader_secret.encode())).decrypt(
            raw[:NONCE_BYTES], raw[NONCE_BYTES:], purpose.encode()
        )
    except InvalidTag:
        raise ValueError("it was sealed for another reader") from None
