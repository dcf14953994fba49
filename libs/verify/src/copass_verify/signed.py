"""Checkpoints as they are found: signed by the key that the city had then, or not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from copass_verify.checkpoints import Checkpoint, WrongCheckpoint, parse_checkpoint
from copass_verify.keys import Chain
from copass_verify.notes import Verifier, open_note


@dataclass(frozen=True, slots=True)
class Seen:
    """A checkpoint that its city signed, and where it was found."""

    checkpoint: Checkpoint
    cosigned_by: tuple[str, ...]
    source: str

    @property
    def time(self) -> float:
        """When it was signed, as it says; 0 when it does not."""
        for line in self.checkpoint.extra:
            name, _, value = line.partition(" ")
            if name == "time" and value.isdecimal() and len(value) < 16:
                return float(value)
        return 0.0


# Raises WrongNote and WrongCheckpoint.
OpenSigned = Callable[[bytes], Seen]


def opener(chain: Chain, cosigners: Sequence[Verifier], source: str) -> OpenSigned:
    """How the checkpoints of a city are opened."""
    keys = chain.verifiers()
    others = {key for key in cosigners if key.name != chain.name}

    def open_signed(raw: bytes) -> Seen:
        note = open_note(raw, [*keys, *others])
        checkpoint = parse_checkpoint(note.text)
        signers = {signature.verifier for signature in note.signatures}
        check_signer(checkpoint, chain, signers)
        return Seen(checkpoint, tuple(sorted({key.name for key in signers & others})), source)

    return open_signed


def check_signer(checkpoint: Checkpoint, chain: Chain, signers: set[Verifier]) -> None:
    """Raises WrongCheckpoint unless the log's key of that time signed, and no other key of it."""
    size = checkpoint.size
    signed_by = {chain.number_of(key.public_key) for key in signers if key.name == chain.name}
    if checkpoint.origin != chain.name or not signed_by:
        raise WrongCheckpoint(f"it is not signed by {chain.name}")
    expected = chain.number_at(size)
    for number in sorted(one for one in signed_by if one is not None):
        if number < expected:
            raise WrongCheckpoint(f"{size} entries are signed by key {number}, after its hand-over")
        if number > expected:
            raise WrongCheckpoint(f"{size} entries are signed by key {number}, before its time")
