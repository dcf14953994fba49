"""What the board looks for in what people write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timebank.board.search import QUERY_WORDS_MAX, fold, needed, query_terms, terms


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Réparation de vélos", ["reparation", "velo"]),
        ("L'œuf, à l’ŒIL !", ["oeuf", "oeil"]),
        ("garde d'enfants", ["garde", "enfant"]),
        ("travaux", ["travau"]),
        ("bus gaz bois", ["bus", "gaz", "boi"]),
        ("STRASSE straße", ["strasse"]),
        ("re\u0301parer réparer", ["reparer"]),
        ("vélo-cargo 24V", ["velo", "cargo", "24v"]),
        ("été même à", []),
        ("& | ! ( ) : * < > ' \\ %", []),
    ],
)
def test_words_are_folded(text: str, words: list[str]) -> None:
    assert terms(text) == words


def test_of_a_long_query_the_first_words_count() -> None:
    assert len(query_terms(" ".join(f"mot{number}" for number in range(30)))) == QUERY_WORDS_MAX


def test_all_of_two_words_and_two_thirds_of_more_are_needed() -> None:
    assert [needed(count) for count in range(1, 9)] == [1, 2, 2, 3, 4, 4, 5, 6]


@given(st.text(max_size=300))
def test_whatever_is_written_only_letters_and_digits_are_looked_for(text: str) -> None:
    """So no operator of a tsquery, and no quote, can come from a query."""
    for word in query_terms(text):
        assert word.isalnum()
        assert fold(word).split() == [word]
