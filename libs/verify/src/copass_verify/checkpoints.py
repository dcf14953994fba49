"""Checkpoints: what a log says of itself at one moment (C2SP tlog-checkpoint).

origin
size, in decimal
base64(root)
"""

import base64
import binascii
import re
from dataclasses import dataclass

from copass_verify.merkle import EMPTY_ROOT, HASH_BYTES, SIZE_MAX
from copass_verify.notes import decode_base64

SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class WrongCheckpoint(ValueError):
    """The text is no checkpoint; the message says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The root over the first `size` entries of the log named `origin`; `extra` lines mean nothing
    here and are kept."""

    origin: str
    size: int
    root: bytes
    extra: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extra]
        return "".join(f"{line}\n" for line in lines)


def parse_checkpoint(text: str) -> Checkpoint:
    """Raises WrongCheckpoint unless there is exactly one way to write it, and this is it."""
    if not text.endswith("\n") or "\r" in text:
        raise WrongCheckpoint("each line of a checkpoint ends with a line feed")
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        raise WrongCheckpoint("a checkpoint has an origin, a size and a root")
    origin, size, encoded, *extra = lines
    if not SIZE.fullmatch(size) or int(size) > SIZE_MAX:
        raise WrongCheckpoint("the size is a decimal number without a sign or leading zeros")
    try:
        root = decode_base64(encoded)
    except (ValueError, binascii.Error) as error:
        raise WrongCheckpoint("the root is base64") from error
    if len(root) != HASH_BYTES:
        raise WrongCheckpoint(f"the root has {len(root)} bytes instead of {HASH_BYTES}")
    if int(size) == 0 and root != EMPTY_ROOT:
        raise WrongCheckpoint("an empty log has the empty root")
    return Checkpoint(origin, int(size), root, tuple(extra))
