"""Every text that the pages say exists in both languages, and no text is left over."""

import re
from datetime import UTC, date, datetime
from importlib.resources import files
from pathlib import Path
from typing import get_args

import pytest

from access.operators.domain import Trouble
from copass_tap.decision import DenyReason, GrantReason
from portal.audit import calls as audit
from portal.audit.routes import TABLES
from portal.board import calls as board
from portal.board.exchanges import BUTTONS
from portal.clearing import calls as clearing
from portal.contributions import calls as contributions
from portal.doors import calls as doors
from portal.i18n import LANGUAGES, Speech, catalogue
from portal.me.routes import VISIBILITIES
from portal.notices import calls as notices
from portal.pledges import calls as pledges
from portal.solidarity import calls as solidarity
from portal.solidarity.routes import PURPOSES
from timebank.audit.domain import EXPLAINED

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
    "category.",
    "board.kind_",
    "board.what_",
    "found.",
    "match.",
    "exchange.",
    "step.",
    "listing.visibility_",
    "notices.email_",
    "me.seen_by_",
    "erase.",
    "standing.",
    "crossing.state_",
    "netting.state_",
    "netting.pair_",
    "netting.alarm_",
    "audit.",
    "door.",
    "reader.",
    "crossing.because_",
    "agreement.state_",
    "agreement.change_",
    "agreement.do_",
    "guest.is_",
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


def named_by_services() -> list[str]:
    """The keys that are put together from what a service may say."""
    families = {
        "activity": contributions.ACTIVITIES,
        "category": board.CATEGORIES,
        "board": [f"kind_{kind}" for kind in board.KINDS] + [f"what_{w}" for w in board.WHATS],
        "contribution": [
            status + end
            for status in get_args(contributions.Contribution.model_fields["status"].annotation)
            for end in ("", "_mine", "_text")
        ],
        "side": get_args(contributions.Version.model_fields["side"].annotation),
        "period": get_args(pledges.Period.model_fields["state"].annotation),
        "standing": [
            name + end
            for name in get_args(pledges.Standing.model_fields["standing"].annotation)
            for end in ("", "_text")
        ],
        "solidarity": [
            *get_args(solidarity.HelpRequest.model_fields["status"].annotation),
            *(f"for_{one}" for one in PURPOSES),
        ],
        "exchange": [
            status + end for status in (*board.STATUSES, "unknown") for end in ("", "_text")
        ],
        "step": [step.replace("-", "_") for step in (*BUTTONS, "damaged", "rule")],
        "notices": [f"email_{one}" for one in notices.EMAIL_CHOICES],
        "me": [f"seen_by_{one}" for one in VISIBILITIES],
        "found": board.FOUND_IN,
        "match": board.MATCH_CODES,
        "agreement": [
            *(f"state_{state}" for state in (*clearing.AGREEMENT_STATES, "to_accept", "unknown")),
            *(f"change_{change}" for change in (*clearing.CHANGES, "other")),
            *(f"do_{step}{end}" for step in clearing.STEPS for end in ("", "_text")),
        ],
        "crossing": [
            *(
                f"state_{state}"
                for state in (*clearing.SENT_STATES, *clearing.RECEIVED_STATES, "unknown")
            ),
            *(f"because_{reason}" for reason in (*clearing.REASONS, "other")),
        ],
        "audit": [
            *(f"rule_{rule}" for rule in (*audit.RULES, "other")),
            *(f"because_{rule}" for rule in audit.RULES),
            *(f"line_{kind}" for kind in (*audit.LINES, "other")),
            *(f"table_{table}" for table in TABLES),
            *(f"role_{role}" for role in ("auditor", "federation_admin", "other")),
        ],
        "door": [f"reason_{reason}" for reason in (*doors.REASONS, "other")],
        "reader": [f"trouble_{trouble}" for trouble in (*doors.TROUBLE, "other")],
    }
    return [f"{family}.{name}" for family, names in families.items() for name in names]


@pytest.mark.parametrize("key", named_by_services())
def test_there_are_words_for_all_that_a_service_may_name(key: str) -> None:
    assert key in catalogue()


def test_the_pages_know_what_the_services_name_now() -> None:
    """Written down twice, because a page imports no service; the same all the same."""
    assert set(doors.REASONS) == {*get_args(GrantReason), *get_args(DenyReason)}
    assert set(doors.TROUBLE) == set(get_args(Trouble))
    assert set(audit.RULES) == set(EXPLAINED)


def test_french_signs_stay_with_their_word() -> None:
    assert str(Speech("fr")("log.how_long")).endswith("temps\u202f?")
    assert "«\u00a0" in str(Speech("fr")("found.title", word="vélo"))


def test_the_first_of_a_month_is_an_ordinal_in_french() -> None:
    day = date(2026, 12, 1)
    assert Speech("fr").on(day) == "mardi 1er décembre"
    assert Speech("fr").short(day) == "1er déc. 2026"
    assert Speech("fr").on(date(2026, 12, 11)) == "vendredi 11 décembre"
    assert Speech("en").on(day) == "Tuesday 1 December"


@pytest.mark.parametrize(
    ("metres", "words"), [(0, "50 m"), (340, "350 m"), (1240, "1.2 km"), (23400, "23 km")]
)
def test_distances_are_no_finer_than_what_is_known(metres: int, words: str) -> None:
    assert Speech("en").distance(metres) == words
