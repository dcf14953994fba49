"""Words, days and second attempts: what notices are without a network."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from uuid import uuid4

import pytest

from identity.notices.channels import compose, message_id, read_sender, read_smtp_url
from identity.notices.domain import (
    ATTEMPTS_MAX,
    BACKOFF,
    Away,
    Delivery,
    Gone,
    Letter,
    Next,
    Notice,
    Preferences,
    Refused,
    Sent,
    digest_due,
    judge,
    wanted,
)
from identity.notices.texts import (
    CATALOGUE,
    GENERIC,
    LANGUAGES,
    discreet_sentence,
    facts,
    sentence,
    write_minutes,
)
from identity.settings import IdentitySettings

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KINDS = sorted(CATALOGUE)
EVERYTHING = {
    "minutes": 90,
    "missing_minutes": 45,
    "performed_on": "2026-11-01",
    "until": "2026-12-24",
    "period": "2026-11",
    "standing": "grace",
    "credit_cents": 1250,
}


@pytest.mark.parametrize(
    ("minutes", "written"),
    [
        (0, "0 min"),
        (45, "45 min"),
        (60, "1 h"),
        (65, "1 h 05"),
        (90, "1 h 30"),
        (120, "2 h"),
        (6000, "100 h"),
        (-90, "-1 h 30"),
    ],
)
def test_minutes_are_written_as_people_write_them(minutes: int, written: str) -> None:
    assert write_minutes(minutes) == written


@pytest.mark.parametrize(("kind", "language"), list(product(KINDS, LANGUAGES)))
def test_every_kind_has_words_with_all_facts_and_with_none(kind: str, language: Any) -> None:
    full, empty = sentence(kind, EVERYTHING, language), sentence(kind, {}, language)
    for text in (full, empty):
        assert text.endswith((".", "!"))
        assert "{" not in text
    assert sentence(kind, EVERYTHING, "fr") != sentence(kind, EVERYTHING, "en")
    assert CATALOGUE[kind][language][-1] == empty  # the last needs nothing


def test_every_fact_that_a_sentence_names_can_be_written() -> None:
    for kind, language in product(CATALOGUE, LANGUAGES):
        for candidate in CATALOGUE[kind][language]:
            for name in re.findall(r"\{(\w+)\}", candidate):
                assert name in facts(EVERYTHING, language), f"{kind}: {name}"


def test_a_notice_says_what_is_known() -> None:
    told = sentence("contribution.to_confirm", {"minutes": 120, "performed_on": "2026-11-01"}, "fr")
    assert told == "2 h ont été notées pour le 1er novembre 2026 : à vous de confirmer."
    assert sentence("standing.changed", {"standing": "lapsed"}, "en") == (
        "Your standing is now: overdue."
    )
    assert "12,50 €" in sentence("rent_credit.made", {"minutes": 60, "credit_cents": 1250}, "fr")
    assert sentence("pledge.met", {"period": "2026-11-01"}, "en") == (
        "Your pledge for November 2026 is met: thank you!"
    )


def test_an_unknown_kind_gets_general_words() -> None:
    for language in LANGUAGES:
        assert sentence("brand.new", EVERYTHING, language) == GENERIC[language][0]


HOSTILE: list[Any] = [
    "90\r\nBcc: x@y.z",
    True,
    2**70,
    1.5,
    None,
    [90],
    {"a": 1},
    "<script>",
    "{minutes.__class__}",
    "2026-13",
    "２０２６-11",
]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_only_numbers_dates_and_known_words_come_into_a_sentence(value: Any) -> None:
    names = [*EVERYTHING, "evil"]
    for kind, name, language in product(KINDS, names, LANGUAGES):
        subject = {**dict.fromkeys(EVERYTHING, "x"), name: value}
        assert sentence(kind, subject, language) == sentence(kind, {}, language)


def test_what_is_delicate_leaves_the_app_in_general_words_only() -> None:
    delicate = ["solidarity.granted", "solidarity.declined", "standing.changed", "pledge.short"]
    for kind in delicate:
        assert discreet_sentence(kind, EVERYTHING, "fr") == GENERIC["fr"][0]
    assert discreet_sentence("transfer.received", {"minutes": 30}, "fr") == (
        "Vous avez reçu 30 min."
    )


# The e-mail


def make_letter(kind: str = "transfer.received", *, count: int = 1, **more: Any) -> Letter:
    notices = tuple(
        Notice(uuid4(), uuid4(), kind, {"minutes": 60 + n, "note": "secret"}, NOW)
        for n in range(count)
    )
    return Letter(uuid4(), "fr", notices, "ana@exemple.invalid", None, NOW, **more)


SENDER = read_sender("Copass <rien@copass.example>")


def test_an_email_is_plain_and_leads_to_the_portal() -> None:
    letter = make_letter()
    message = compose(
        letter, to="ana@exemple.invalid", sender=SENDER, portal_url="https://p.example"
    )
    assert message["Subject"] == "Copass : Vous avez reçu du temps."
    assert message["From"] == "Copass <rien@copass.example>"
    assert message["To"] == "ana@exemple.invalid"
    assert message["Message-ID"] == f"<{letter.delivery_id}@copass.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_content()
    assert "Vous avez reçu 1 h." in text
    assert "https://p.example/notices\n" in text.replace("\r", "")
    assert "secret" not in message.as_string()
    assert message.get_content_type() == "text/plain"
    message.as_bytes()


def test_the_email_of_a_day_lists_a_bounded_number() -> None:
    letter = make_letter(count=25, is_digest=True)
    message = compose(letter, to="a@b.example", sender=SENDER, portal_url="https://p.example")
    text = message.get_content()
    assert message["Subject"] == "Copass : votre journée"
    assert text.count("\n- ") + text.count("\r\n- ") == 20
    assert "… et 5 de plus." in text


def test_a_delicate_notice_shows_nothing_in_the_subject_either() -> None:
    message = compose(
        make_letter("solidarity.granted"),
        to="a@b.example",
        sender=SENDER,
        portal_url="https://p.example",
    )
    assert "solidarité" not in message.as_string()
    assert message["Subject"] == "Copass : Il y a du nouveau pour vous."


def test_the_message_id_is_the_same_at_each_attempt() -> None:
    delivery_id = uuid4()
    assert message_id(delivery_id, SENDER) == message_id(delivery_id, SENDER)


@pytest.mark.parametrize(
    ("url", "host", "port", "security", "user"),
    [
        ("smtp://localhost", "localhost", 25, "none", None),
        ("smtps://me@mail.example", "mail.example", 465, "tls", "me"),
        (
            "smtp+starttls://me%40x.fr@mail.example:2525",
            "mail.example",
            2525,
            "starttls",
            "me@x.fr",
        ),
    ],
)
def test_the_address_of_the_mail_server_says_how_to_reach_it(
    url: str, host: str, port: int, security: str, user: str | None
) -> None:
    box = read_smtp_url(url)
    assert (box.host, box.port, box.security, box.user) == (host, port, security, user)


@pytest.mark.parametrize(
    "url",
    [
        "http://mail.example",
        "mail.example:25",
        "smtp://",
        "smtp://me@mail.example",  # a password in clear
        "smtps://me:hunter2@mail.example",
        "smtps://mail.example/x",
        "smtps://mail.example:99999",
    ],
)
def test_a_mail_server_that_is_not_safe_or_not_clear_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        read_smtp_url(url)
    assert "hunter2" not in str(raised.value)


def settings(**more: Any) -> IdentitySettings:
    return IdentitySettings(
        database_url="postgresql://x",
        kafka_bootstrap="x:1",
        token_issuer="https://i.example",
        jwks_url="https://i.example/jwks",
        card_pepper="p" * 32,
        key_secret="k" * 32,
        **more,
    )


def test_email_is_off_unless_all_of_it_is_set() -> None:
    assert settings().smtp_url == ""
    whole = {
        "smtp_url": "smtp://mail.example",
        "mail_from": "Copass <rien@copass.example>",
        "portal_url": "https://p.example",
    }
    assert settings(**whole).mail_from
    for name in whole:
        if name != "smtp_url":
            with pytest.raises(ValueError, match=name):
                settings(**{**whole, name: ""})
    with pytest.raises(ValueError, match="smtp_url"):
        settings(**{**whole, "smtp_url": "https://mail.example"})
    with pytest.raises(ValueError, match="mail_from"):
        settings(**{**whole, "mail_from": "Copass <a@b.fr>\r\nBcc: <c@d.fr>"})


# Second attempts


def make_delivery(**more: Any) -> Delivery:
    made = Delivery(uuid4(), uuid4(), "email", uuid4(), None, None, 1, NOW)
    return replace(made, **more)


def test_what_was_taken_or_refused_for_good_is_over() -> None:
    assert judge(make_delivery(), Sent(), NOW) == Next("sent")
    assert judge(make_delivery(), Refused("smtp_550"), NOW) == Next(
        "refused", last_error="smtp_550"
    )
    assert judge(make_delivery(), Gone(), NOW) == Next("refused", last_error="gone")


def test_a_server_that_is_away_is_asked_later_and_later_and_then_no_more() -> None:
    pauses = []
    for attempts in range(1, ATTEMPTS_MAX + 1):
        after = judge(make_delivery(attempts=attempts), Away("x"), NOW)
        if after.status == "given_up":
            break
        assert after.next_at
        pauses.append(after.next_at - NOW)
    assert pauses == list(BACKOFF) == sorted(pauses)
    assert after == Next("given_up", last_error="x")
    assert timedelta(hours=20) < sum(pauses, timedelta()) < timedelta(days=3)


def test_a_wish_for_patience_is_heard_within_bounds() -> None:
    def pause(wait: timedelta) -> timedelta:
        after = judge(make_delivery(), Away("http_429", wait), NOW)
        assert after.next_at
        return after.next_at - NOW

    assert pause(timedelta(seconds=1)) == BACKOFF[0]
    assert pause(timedelta(minutes=7)) == timedelta(minutes=7)
    assert pause(timedelta(days=300)) == BACKOFF[-1]


def test_the_choice_counts_when_a_message_is_about_to_leave() -> None:
    each, digest = make_delivery(), make_delivery(notice_id=None, digest_on=date(2026, 11, 22))
    push = make_delivery(channel="push")
    assert [wanted(d, Preferences("each", True)) for d in (each, digest, push)] == [
        True,
        False,
        True,
    ]
    assert [wanted(d, Preferences("daily", False)) for d in (each, digest, push)] == [
        False,
        True,
        False,
    ]
    assert [wanted(d, Preferences("off", False)) for d in (each, digest, push)] == [False] * 3


# The e-mail of the day


def test_the_day_ends_at_six_in_the_evening_of_the_city() -> None:
    # Paris is one hour ahead in November, two in July; La Réunion is four ahead all year.
    assert digest_due("Europe/Paris", datetime(2026, 11, 22, 16, 59, tzinfo=UTC)) is None
    winter = digest_due("Europe/Paris", datetime(2026, 11, 22, 17, 0, tzinfo=UTC))
    assert winter
    assert winter.on == date(2026, 11, 22)
    assert winter.until == datetime(2026, 11, 22, 17, tzinfo=UTC)
    assert digest_due("Europe/Paris", datetime(2026, 7, 1, 15, 59, tzinfo=UTC)) is None
    assert digest_due("Europe/Paris", datetime(2026, 7, 1, 16, tzinfo=UTC))
    assert digest_due("Indian/Reunion", datetime(2026, 11, 22, 14, tzinfo=UTC))
    # After midnight it is the next day's turn, and that has not come.
    assert digest_due("Europe/Paris", datetime(2026, 11, 22, 23, 30, tzinfo=UTC)) is None
