"""Messages of NTAG 424 DNA cards, against the values that NXP published, and against forgers."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from copass_tap import ntag424
from copass_tap.ntag424 import KEY_FILE_READ, KeySet, Picc

VECTORS = json.loads((Path(__file__).parent / "data" / "ntag424.json").read_text())
MESSAGES = {case["id"]: case for case in VECTORS["encrypted_vectors"]}
FORGERIES = 100_000


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize("case", MESSAGES.values(), ids=lambda case: case["id"])
def test_published_messages(case: dict[str, Any]) -> None:
    picc = ntag424.open_picc(raw(case["meta_key"]), raw(case["picc_enc"]))
    assert picc == Picc(raw(case["expect"]["uid"]), case["expect"]["read_ctr"])
    covered = case["mac_input_ascii"].encode()
    assert ntag424.session_mac(raw(case["file_key"]), picc, covered) == raw(case["sdmmac"])
    assert ntag424.is_genuine(raw(case["file_key"]), picc, raw(case["sdmmac"]), covered)


@pytest.mark.parametrize("case", VECTORS["plain_vectors"], ids=lambda case: case["id"])
def test_published_messages_in_clear(case: dict[str, Any]) -> None:
    picc = Picc(raw(case["uid"]), int(case["ctr_url_msb"], 16))
    assert ntag424.is_genuine(raw(case["file_key"]), picc, raw(case["sdmmac"]))


@pytest.mark.parametrize("case", VECTORS["negative"], ids=lambda case: case["id"])
def test_published_forgeries(case: dict[str, Any]) -> None:
    message = MESSAGES[case["based_on"]]
    picc = ntag424.open_picc(raw(message["meta_key"]), raw(message["picc_enc"]))
    assert picc is not None
    covered = message["mac_input_ascii"].encode()
    assert not ntag424.is_genuine(raw(message["file_key"]), picc, raw(case["sdmmac"]), covered)


def test_published_diversified_key() -> None:
    (case,) = VECTORS["kdf_vectors"]
    application = raw(case["aid"]) + raw(case["system_id"])
    key = ntag424.diversify(raw(case["master"]), raw(case["uid"]), application)
    assert key == raw(case["diversified"])
    # A short input is where AN10922 and RFC 4493 part.
    short = ntag424.diversify(raw(case["master"]), raw(case["uid"]))
    assert short == raw(case["note_uid_only"]["an10922_padded_to_32"])


def test_an_input_of_31_bytes_is_the_longest() -> None:
    ntag424.diversify(bytes(16), bytes(7), bytes(24))
    with pytest.raises(ValueError, match="31 bytes"):
        ntag424.diversify(bytes(16), bytes(7), bytes(25))


def test_no_changed_message_is_genuine() -> None:
    """Random and mutated messages; the key and the seed are fixed, so a failure comes again."""
    chance = random.Random(424)
    meta_key, master_key = chance.randbytes(16), chance.randbytes(16)
    uid, counter = chance.randbytes(7), 4711
    plain = bytes([0xC7]) + uid + counter.to_bytes(3, "little") + chance.randbytes(5)
    honest = ntag424.encrypt(meta_key, plain)
    mac = ntag424.session_mac(ntag424.diversify(master_key, uid), Picc(uid, counter))
    believed = 0
    for number in range(FORGERIES):
        message, forged = bytearray(honest), bytearray(mac)
        if number % 3 == 0:
            message, forged = bytearray(chance.randbytes(16)), bytearray(chance.randbytes(8))
        elif number % 3 == 1:
            message[chance.randrange(16)] ^= 1 << chance.randrange(8)
        else:
            forged[chance.randrange(8)] ^= 1 << chance.randrange(8)
        picc = ntag424.open_picc(meta_key, bytes(message))
        if picc is not None:
            key = ntag424.diversify(master_key, picc.uid)
            believed += ntag424.is_genuine(key, picc, bytes(forged))
    assert believed == 0
    genuine = ntag424.open_picc(meta_key, honest)
    assert genuine == Picc(uid, counter)


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_another_length_is_no_message(length: int) -> None:
    assert ntag424.open_picc(bytes(16), bytes(length)) is None


def test_a_card_of_the_network_is_read_and_no_other() -> None:
    ours, theirs = KeySet(bytes(16), bytes([1] * 16)), KeySet(bytes(16), bytes([2] * 16))
    uid = raw("04DE5F1EACC040")
    picc = Picc(uid, 61)
    message = ntag424.encrypt(ours.meta, b"\xc7" + uid + (61).to_bytes(3, "little") + bytes(5))
    mac = ntag424.session_mac(ours.key_of(uid, KEY_FILE_READ), picc)
    assert ours.read(message, mac) == picc
    assert theirs.read(message, mac) is None
    # The keys of a card differ from one another, and from those of every other card.
    keys = [ours.key_of(card, number) for card in (uid, uid[::-1]) for number in (0, 1)]
    assert len(set(keys)) == 4


def test_keys_are_where_the_reference_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [{"meta": "00" * 16, "master": "11" * 16}, {"meta": "22" * 16, "master": "33" * 16}]
    (tmp_path / "keys.json").write_text(json.dumps(sets))
    monkeypatch.setenv("SOME_KEYS", json.dumps(sets))
    expected = tuple(KeySet(raw(item["meta"]), raw(item["master"])) for item in sets)
    assert ntag424.load_keys(f"file:{tmp_path / 'keys.json'}") == expected
    assert ntag424.load_keys("env:SOME_KEYS") == expected
    monkeypatch.setenv("NO_KEYS", "[]")
    assert ntag424.load_keys("") == ntag424.load_keys("env:NO_KEYS") == ()
    assert "11" not in repr(expected)


@pytest.mark.parametrize(
    "content",
    ["", "1", '{"meta": ""}', "[1]", '[{"meta": "00"}]', '[{"meta": "00", "master": "deadbeef"}]'],
)
def test_keys_that_are_none_are_refused_without_being_repeated(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="no card keys") as refused:
        ntag424.load_keys(f"file:{path}")
    assert "deadbeef" not in str(refused.value)


@pytest.mark.parametrize("reference", ["file:/nowhere", "env:NOT_SET_AT_ALL", "0011", "vault:x"])
def test_a_reference_to_nothing_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="card keys"):
        ntag424.load_keys(reference)
