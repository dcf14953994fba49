"""That one entry is in a log, as a text that stands by itself (C2SP tlog-proof).

c2sp.org/tlog-proof@v1
extra base64            optional, and not looked at
index N
base64(hash)            from the leaf's sibling to the root's child
(blank line)
checkpoint, a signed note
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from copass_verify.merkle import HASH_BYTES
from copass_verify.notes import decode_base64

HEADER = "c2sp.org/tlog-proof@v1"
INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
HASHES_MAX = 63


class WrongForm(ValueError):
    """The text is no proof; the message says why."""


@dataclass(frozen=True, slots=True)
class EntryProof:
    """The entry's number, the hashes, and the note of the checkpoint, still to be opened."""

    index: int
    hashes: tuple[bytes, ...]
    note: str

    def __str__(self) -> str:
        hashes = "".join(f"{base64.b64encode(item).decode()}\n" for item in self.hashes)
        return f"{HEADER}\nindex {self.index}\n{hashes}\n{self.note}"


def write_proof(index: int, hashes: Sequence[bytes], note: str) -> str:
    return str(EntryProof(index, tuple(hashes), note))


def read_proof(text: str) -> EntryProof:
    """Raises WrongForm."""
    above, blank, note = text.partition("\n\n")
    header, *lines = above.split("\n")
    if header != HEADER or not blank:
        raise WrongForm(f"a proof begins with {HEADER}, and a blank line is above its checkpoint")
    if lines and lines[0].startswith("extra "):
        del lines[0]
    found = INDEX.fullmatch(lines[0]) if lines else None
    if found is None or len(lines) > 1 + HASHES_MAX:
        raise WrongForm("a proof has a number, and 63 hashes at most")
    try:
        hashes = tuple(decode_base64(line) for line in lines[1:])
    except (ValueError, binascii.Error) as error:
        raise WrongForm("the hashes of a proof are base64") from error
    if any(len(item) != HASH_BYTES for item in hashes):
        raise WrongForm(f"a hash of a proof has {HASH_BYTES} bytes")
    return EntryProof(int(found[1]), hashes, note)
