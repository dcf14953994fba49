"""What the time bank tells members has words in identity."""

from typing import get_args

import pytest

from identity.notices.texts import CATALOGUE, LANGUAGES
from timebank.notices import NoticeKind


@pytest.mark.parametrize("kind", get_args(NoticeKind))
def test_every_kind_of_notice_has_words_in_both_languages(kind: str) -> None:
    assert set(CATALOGUE[kind]) == set(LANGUAGES)
