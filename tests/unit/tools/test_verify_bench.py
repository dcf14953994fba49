"""The bench of the verifier: its baseline is the tree that is verified."""

import pytest

from copass.bench.verify import bare_tree
from copass_verify.merkle import hash_leaf, root_of


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 100])
def test_the_bare_tree_is_the_one_that_is_signed(count: int) -> None:
    entries = [str(number).encode() for number in range(count)]
    assert bare_tree(entries) == root_of(hash_leaf(entry) for entry in entries)
