"""Signed notes and checkpoints, against the published vectors, and against what forgers try."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from copass_verify import merkle
from copass_verify.checkpoints import Checkpoint, WrongCheckpoint, parse_checkpoint
from copass_verify.notes import (
    WrongKey,
    WrongNote,
    format_note,
    open_note,
    parse_signer,
    parse_verifier,
    to_signer,
)

VECTORS = json.loads((Path(__file__).parent / "data" / "note_checkpoint_vectors.json").read_text())

NANTES = to_signer("copass.example/nantes", bytes(range(32)))
BREST = to_signer("copass.example/brest", bytes(range(32, 64)), cosigns=True)
TEXT = str(Checkpoint("copass.example/nantes", 3, merkle.hash_leaf(b"x")))


@pytest.mark.parametrize("case", VECTORS["notes"], ids=lambda case: case["name"])
def test_published_notes(case: dict[str, Any]) -> None:
    raw = base64.b64decode(case["msg_b64"])
    verifiers = [parse_verifier(text) for text in case["verifiers"]]
    if case["expect"] != "ok":
        with pytest.raises(WrongNote) as wrong:
            open_note(raw, verifiers)
        assert wrong.value.fault == case["expect"]
        return
    note = open_note(raw, verifiers)
    assert len(note.signatures) == case.get("verified", 1)
    if "unverified" in case:
        assert note.unknown == case["unverified"]


@pytest.mark.parametrize("case", VECTORS["vkeys"], ids=lambda case: case["vkey"][:30])
def test_published_keys(case: dict[str, Any]) -> None:
    if case["valid"]:
        assert str(parse_verifier(case["vkey"])) == case["vkey"]
    else:
        with pytest.raises(WrongKey):
            parse_verifier(case["vkey"])


def test_a_key_that_lost_or_changed_a_character_is_refused() -> None:
    whole = VECTORS["vkeys"][0]["vkey"]
    skey = VECTORS["signing"][0]["skey"]
    for key, parse in ((whole, parse_verifier), (skey, parse_signer)):
        parts = {key[begin:end] for begin in range(len(key)) for end in range(begin, len(key))}
        changed = {key[:at] + chr(ord(key[at]) + 1) + key[at + 1 :] for at in range(len(key))}
        for wrong in parts | changed:
            with pytest.raises(WrongKey):
                parse(wrong)


@pytest.mark.parametrize("case", VECTORS["signing"], ids=lambda case: case["skey"][12:40])
def test_published_signatures_are_made_again_byte_by_byte(case: dict[str, Any]) -> None:
    signer = parse_signer(case["skey"])
    text = base64.b64decode(case["text_b64"]).decode()
    note = format_note(text, [signer.sign(text)])
    assert note.encode() == base64.b64decode(case["expect_msg_b64"])


@pytest.mark.parametrize("case", VECTORS["checkpoint_parse"], ids=lambda case: case["name"])
def test_published_checkpoints(case: dict[str, Any]) -> None:
    """Those called valid have roots that are no SHA-256, which their parser does not look at."""
    with pytest.raises(WrongCheckpoint):
        parse_checkpoint(case["text"])


@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_a_checkpoint_is_read_back(size: int) -> None:
    root = merkle.hash_leaf(b"x") if size else merkle.EMPTY_ROOT
    checkpoint = Checkpoint("copass.example/nantes", size, root, ("more",))
    assert parse_checkpoint(str(checkpoint)) == checkpoint


def test_an_empty_log_has_one_root_only() -> None:
    with pytest.raises(WrongCheckpoint):
        parse_checkpoint(str(Checkpoint("x", 0, merkle.hash_leaf(b""))))


def test_a_cosignature_says_when() -> None:
    raw = format_note(TEXT, [NANTES.sign(TEXT), BREST.cosign(TEXT, 1_795_334_400)]).encode()
    note = open_note(raw, [NANTES.verifier, BREST.verifier])
    assert [(item.verifier.name, item.signed_at) for item in note.signatures] == [
        ("copass.example/nantes", None),
        ("copass.example/brest", 1_795_334_400),
    ]


def test_a_cosignature_with_another_time_is_refused() -> None:
    line = BREST.cosign(TEXT, 1_795_334_400)
    later = (1_795_334_401).to_bytes(8, "big") + line.signature[8:]
    raw = format_note(TEXT, [type(line)(line.name, line.key_id, later)]).encode()
    with pytest.raises(WrongNote, match="wrong"):
        open_note(raw, [BREST.verifier])


def test_a_signature_is_of_its_text_only() -> None:
    raw = format_note(TEXT, [NANTES.sign(TEXT)]).encode().replace(b"\n3\n", b"\n4\n")
    with pytest.raises(WrongNote, match="wrong"):
        open_note(raw, [NANTES.verifier])


@pytest.mark.parametrize("text", ["no end of line", "a\rb\n", "", "\ud800\n"])
def test_what_could_not_be_read_back_is_not_written(text: str) -> None:
    with pytest.raises((WrongNote, UnicodeEncodeError)):
        format_note(text, [NANTES.sign("x\n")])
