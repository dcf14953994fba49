"""Every text that the pages say exists in both languages, and no text is left over."""

import re
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest

from portal.i18n import LANGUAGES, Speech, catalogue

# Said of what the services name, so that the code holds only the beginning of the key.
FAMILIES = (
    "problem.",
    "unavailable.",
    "block.",
    "card.",
    "activity.",
    "beneficiary.",
    "contribution.",
    "log.for_",
    "contributions.as_",
    "movement.",
    "period.",
    "side.",
    "solidarity.",
    "standing.",
)


def sources() -> str:
    root = Path(str(files("portal")))
    found = [*root.glob("templates/**/*.html"), *root.glob("**/*.py")]
    return "\n".join(path.read_text("utf-8") for path in found)


def test_every_text_is_there_in_every_language() -> None:
    for key, texts in catalogue().items():
        assert set(texts) == set(LANGUAGES), key
        for text in texts.values():
            forms = [text] if isinstance(text, str) else list(text.values())
            assert all(form.strip() for form in forms), key
            if not isinstance(text, str):
                assert set(text) == {"one", "other"}, key


def test_both_languages_fill_in_the_same_names() -> None:
    for key, texts in catalogue().items():
        names = {
            frozenset(re.findall(r"\{(\w+)\}", text if isinstance(text, str) else text["other"]))
            for text in texts.values()
        }
        assert len(names) == 1, key


def test_the_pages_use_every_text_and_no_other() -> None:
    said = set(re.findall(r'["\']([a-z_]+\.[a-z_]+)["\']', sources()))
    used = {key for key in said if key in catalogue()}
    for key in re.findall(r'\bt\(\s*"([a-z_]+\.[a-z_]+)"\s*[,)]', sources()):
        assert key in catalogue(), key
    left_over = {key for key in catalogue().keys() - used if not key.startswith(FAMILIES)}
    assert not left_over


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0, "0 min"),
        (45, "45 min"),
        (60, "1 h"),
        (-90, "1 h 30"),
        (605, "10 h 05"),
        (60000, "1,000 h"),
    ],
)
def test_minutes_in_words(minutes: int, words: str) -> None:
    assert Speech("en").minutes(minutes) == words


def test_singular_and_plural_follow_each_language() -> None:
    assert Speech("fr")("home.places", n=0) == "0 lieu"
    assert Speech("en")("home.places", n=0) == "0 places"
    assert Speech("fr")("home.places", n=1200) == "1\u202f200 lieux"


def test_times_are_those_of_the_place() -> None:
    moment = datetime(2026, 7, 1, 22, 30, tzinfo=UTC)
    assert Speech("fr").time(moment, "Europe/Paris") == "00:30"
    assert Speech("fr").day(moment, "Europe/Paris") == "jeudi 2 juillet"
    assert Speech("en").time(moment, "Not/A_Zone") == "22:30"
