"""Merkle trees of RFC 6962, section 2.1: hashes, roots, proofs and their verification.

A hash is 32 bytes of SHA-256. A tree of n leaves is split at the largest power of two below n, so
a lone node on the right is promoted as it is. Pure: whoever keeps the nodes passes a way to get
them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256

HASH_BYTES = 32
# What fits a signed 64-bit integer, as databases and most verifiers count.
SIZE_MAX = 2**63 - 1

EMPTY_ROOT = sha256(b"").digest()

# The hash of the perfect subtree of 2**level leaves whose number among those of its level is index.
NodeAt = Callable[[int, int], bytes]


class WrongProof(ValueError):
    """The proof does not show what it is said to show; the message says how it fails."""


def hash_leaf(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that grows at its right end, kept as the roots of its perfect subtrees.

    `size` leaves take at most 63 hashes. `append` gives every node that the new leaf completes, so
    that they can be kept for proofs.
    """

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        """Go on from a tree of `size` leaves; `roots` of its perfect subtrees, the largest first.

        Raises ValueError when their number is not that of the ones in the binary form of `size`.
        """
        if size.bit_count() != len(roots):
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} perfect subtrees")
        self.size = size
        self._roots = list(roots)

    def append(self, leaf_hash: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf; the nodes that are now complete: (level, index, hash), the leaf first."""
        level, index, node = 0, self.size, leaf_hash
        completed = [(level, index, node)]
        while index & 1:
            node = hash_node(self._roots.pop(), node)
            level, index = level + 1, index >> 1
            completed.append((level, index, node))
        self._roots.append(node)
        self.size += 1
        return completed

    def extend(self, entries: Iterable[bytes]) -> None:
        """Add the leaves of entries, for their root alone: `append` without what it tells."""
        roots, index = self._roots, self.size
        for entry in entries:
            node, rest = sha256(b"\x00" + entry).digest(), index
            while rest & 1:
                node = sha256(b"\x01" + roots.pop() + node).digest()
                rest >>= 1
            roots.append(node)
            index += 1
        self.size = index

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, the largest first."""
        return tuple(self._roots)

    def root(self) -> bytes:
        return fold(self._roots)


def fold(roots: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees that stand side by side, the largest first."""
    if not roots:
        return EMPTY_ROOT
    root = roots[-1]
    for left in reversed(roots[:-1]):
        root = hash_node(left, root)
    return root


def root_of(leaf_hashes: Iterable[bytes]) -> bytes:
    frontier = Frontier()
    for leaf_hash in leaf_hashes:
        frontier.append(leaf_hash)
    return frontier.root()


# ── Making proofs ───────────────────────────────────────────────────────────────────────────────


def subtrees(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The perfect subtrees (level, index) that cover the leaves begin…end-1, from the left.

    `begin` is 0 or a multiple of the largest power of two below `end - begin`, as in RFC 6962.
    """
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        yield level, begin >> level
        begin += 1 << level


def root_between(begin: int, end: int, node_at: NodeAt) -> bytes:
    return fold([node_at(level, index) for level, index in subtrees(begin, end)])


def split_of(size: int) -> int:
    """The largest power of two below `size` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def prove_inclusion(index: int, size: int, node_at: NodeAt) -> list[bytes]:
    """The audit path of leaf `index` in the tree of `size` leaves, from the leaf upwards.

    Raises ValueError when the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + split_of(end - begin)
        if index < middle:
            path.append(root_between(middle, end, node_at))
            end = middle
        else:
            path.append(root_between(begin, middle, node_at))
            begin = middle
    return path[::-1]


def prove_consistency(first: int, second: int, node_at: NodeAt) -> list[bytes]:
    """That the tree of `second` leaves begins with the tree of `first`; empty when they are equal.

    Raises ValueError unless 1 <= first <= second.
    """
    if not 1 <= first <= second:
        raise ValueError(f"no proof leads from {first} to {second} leaves")
    path: list[bytes] = []
    begin, end, whole = 0, second, True
    # Down to the subtree where the smaller tree ends; `whole` while it begins where that tree does.
    while first != end:
        middle = begin + split_of(end - begin)
        if first <= middle:
            path.append(root_between(middle, end, node_at))
            end = middle
        else:
            path.append(root_between(begin, middle, node_at))
            begin, whole = middle, False
    if not whole:
        path.append(root_between(begin, end, node_at))
    return path[::-1]


# ── Verifying proofs ────────────────────────────────────────────────────────────────────────────


def check_hash(value: bytes, what: str) -> None:
    if len(value) != HASH_BYTES:
        raise WrongProof(f"{what} has {len(value)} bytes instead of {HASH_BYTES}")


def verify_inclusion(
    leaf_hash: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Raises WrongProof unless the leaf is number `index` of the tree (RFC 9162, 2.1.3.2)."""
    check_hash(leaf_hash, "the leaf's hash")
    check_hash(root, "the root")
    if not 0 <= index < size <= SIZE_MAX:
        raise WrongProof(f"a tree of {size} leaves has no leaf {index}")
    node, last, computed = index, size - 1, leaf_hash
    for sibling in proof:
        check_hash(sibling, "a hash of the proof")
        if last == 0:
            raise WrongProof("the proof is too long")
        if node & 1 or node == last:
            computed = hash_node(sibling, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = hash_node(computed, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise WrongProof("the proof is too short")
    if computed != root:
        raise WrongProof("the proof leads to another root")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raises WrongProof unless the larger tree begins with the smaller, of at least one leaf
    (RFC 9162, 2.1.4.2)."""
    check_hash(first_root, "the first root")
    check_hash(second_root, "the second root")
    if not 1 <= first <= second <= SIZE_MAX:
        raise WrongProof(f"nothing can lead from {first} to {second} leaves")
    if first == second:
        if proof:
            raise WrongProof("trees of one size need no proof")
        if first_root != second_root:
            raise WrongProof("two roots for one size")
        return
    for item in proof:
        check_hash(item, "a hash of the proof")
    # A smaller tree that is perfect is a node of the larger one, so its root stands for itself.
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path:
        raise WrongProof("the proof is too short")
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise WrongProof("the proof is too long")
        if node & 1 or node == last:
            old, new = hash_node(sibling, old), hash_node(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = hash_node(new, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise WrongProof("the proof is too short")
    if old != first_root:
        raise WrongProof("the proof does not lead to the first root")
    if new != second_root:
        raise WrongProof("the proof does not lead to the second root")
