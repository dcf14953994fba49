"""Merkle trees, against the published vectors of transparency-dev/merkle and by their laws."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copass_verify import merkle
from copass_verify.merkle import Frontier, WrongProof

DATA = Path(__file__).parent / "data"
PROOFS = json.loads((DATA / "merkle_proofs.json").read_text())
VECTORS = json.loads((DATA / "note_checkpoint_vectors.json").read_text())

# Its roots have 12 bytes; ours have 32, or are refused.
SHORT_ROOTS = "additional/sizes-are-equal-one-and-proof-is-empty.json"


def decoded(value: str | None) -> bytes:
    return base64.b64decode(value or "")


def path_of(case: dict[str, Any]) -> list[bytes]:
    return [decoded(item) for item in case["proof"] or []]


@pytest.mark.parametrize("name", PROOFS["inclusion"])
def test_inclusion_vectors(name: str) -> None:
    case = PROOFS["inclusion"][name]

    def verify() -> None:
        merkle.verify_inclusion(
            decoded(case["leafHash"]),
            case["leafIdx"],
            case["treeSize"],
            decoded(case["root"]),
            path_of(case),
        )

    if case["wantErr"]:
        with pytest.raises(WrongProof):
            verify()
    else:
        verify()


@pytest.mark.parametrize("name", PROOFS["consistency"])
def test_consistency_vectors(name: str) -> None:
    case = PROOFS["consistency"][name]

    def verify() -> None:
        merkle.verify_consistency(
            case["size1"],
            case["size2"],
            decoded(case["root1"]),
            decoded(case["root2"]),
            path_of(case),
        )

    if case["wantErr"] or name == SHORT_ROOTS:
        with pytest.raises(WrongProof):
            verify()
    else:
        verify()


def test_published_hashes_and_roots() -> None:
    for case in VECTORS["rfc6962_hash"]:
        computed = {
            "empty_root": lambda case: merkle.EMPTY_ROOT,
            "leaf": lambda case: merkle.hash_leaf(bytes.fromhex(case["data_hex"])),
            "node": lambda case: merkle.hash_node(
                bytes.fromhex(case["left_hex"]), bytes.fromhex(case["right_hex"])
            ),
        }[case["kind"]](case)
        assert computed.hex() == case["out"]
    leaves = [
        merkle.hash_leaf(bytes.fromhex(leaf)) for leaf in VECTORS["rfc6962_tree"]["leaves_hex"]
    ]
    for size, root in enumerate(VECTORS["rfc6962_tree"]["roots_hex"], start=1):
        assert merkle.root_of(leaves[:size]).hex() == root


class Log:
    """A tree with all its nodes at hand."""

    def __init__(self, size: int) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.leaves = [merkle.hash_leaf(str(number).encode()) for number in range(size)]
        frontier = Frontier()
        for leaf in self.leaves:
            for level, index, node in frontier.append(leaf):
                self.nodes[level, index] = node
        self.frontier = frontier

    def node_at(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]

    def root(self, size: int) -> bytes:
        return recursive_root(self.leaves[:size])


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition of RFC 6962, word by word: what everything else must agree with."""
    if not leaves:
        return merkle.EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.hash_node(recursive_root(leaves[:split]), recursive_root(leaves[split:]))


def test_every_proof_of_small_trees_holds() -> None:
    log = Log(33)
    for size in range(1, 34):
        root = log.root(size)
        for index in range(size):
            path = merkle.prove_inclusion(index, size, log.node_at)
            merkle.verify_inclusion(log.leaves[index], index, size, root, path)
        for first in range(1, size + 1):
            path = merkle.prove_consistency(first, size, log.node_at)
            merkle.verify_consistency(first, size, log.root(first), root, path)


@given(st.integers(1, 300), st.data())
def test_a_changed_proof_is_refused(size: int, data: st.DataObject) -> None:
    log = Log(size)
    index = data.draw(st.integers(0, size - 1))
    path = merkle.prove_inclusion(index, size, log.node_at)
    other = data.draw(st.integers(0, size - 1).filter(lambda number: number != index) | st.none())
    if other is not None:
        with pytest.raises(WrongProof):
            merkle.verify_inclusion(log.leaves[other], index, size, log.root(size), path)
    if path:
        place = data.draw(st.integers(0, len(path) - 1))
        bit = data.draw(st.integers(0, 255))
        flipped = bytearray(path[place])
        flipped[bit // 8] ^= 1 << bit % 8
        changed = [*path[:place], bytes(flipped), *path[place + 1 :]]
        for wrong in (changed, path[:-1], [*path, path[0]]):
            with pytest.raises(WrongProof):
                merkle.verify_inclusion(log.leaves[index], index, size, log.root(size), wrong)


@given(st.integers(0, 300))
def test_a_tree_goes_on_from_its_frontier(size: int) -> None:
    log = Log(size)
    again = Frontier(size, log.frontier.roots)
    assert again.root() == log.root(size)
    more = merkle.hash_leaf(b"one more")
    again.append(more)
    assert again.root() == recursive_root([*log.leaves, more])


def test_proofs_of_what_is_not_there_are_not_made() -> None:
    log = Log(3)
    for index, size in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(ValueError, match="no leaf"):
            merkle.prove_inclusion(index, size, log.node_at)
    for first, second in ((0, 3), (3, 2)):
        with pytest.raises(ValueError, match="no proof"):
            merkle.prove_consistency(first, second, log.node_at)
    with pytest.raises(ValueError, match="perfect subtrees"):
        Frontier(3, [merkle.EMPTY_ROOT])
