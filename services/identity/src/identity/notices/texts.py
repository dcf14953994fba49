"""The words of the notices, in French and English.

Each kind has sentences from the one that says most to one that needs nothing: the first whose facts
are all known is taken. Only numbers, dates and words of our own come in, so that no text from
elsewhere can.
"""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from identity.notices.domain import Language

LANGUAGES: tuple[Language, ...] = ("fr", "en")
MINUTES_MAX = 2**53

MONTHS: Mapping[Language, tuple[str, ...]] = {
    "fr": (
        *("janvier", "février", "mars", "avril", "mai", "juin"),
        *("juillet", "août", "septembre", "octobre", "novembre", "décembre"),
    ),
    "en": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
}
STANDINGS: Mapping[Language, Mapping[str, str]] = {
    "fr": {
        "good": "à jour",
        "grace": "en délai de grâce",
        "lapsed": "en retard",
        "exempt": "dispensé",
    },
    "en": {
        "good": "up to date",
        "grace": "in the grace period",
        "lapsed": "overdue",
        "exempt": "exempt",
    },
}

Sentences = tuple[str, ...]
GENERIC: Mapping[Language, Sentences] = {
    "fr": ("Il y a du nouveau pour vous.",),
    "en": ("There is news for you.",),
}
# Said outside the app in general words only: whoever looks over a shoulder learns nothing.
DISCREET = ("solidarity.", "standing.", "pledge.short")

CATALOGUE: Mapping[str, Mapping[Language, Sentences]] = {
    "contribution.to_confirm": {
        "fr": (
            "{minutes} ont été notées pour le {performed_on} : à vous de confirmer.",
            "{minutes} ont été notées : à vous de confirmer.",
            "Du temps a été noté : à vous de confirmer.",
        ),
        "en": (
            "{minutes} were logged for {performed_on}: please confirm.",
            "{minutes} were logged: please confirm.",
            "Time was logged: please confirm.",
        ),
    },
    "contribution.confirmed": {
        "fr": (
            "Vos {minutes} du {performed_on} sont confirmées.",
            "Vos {minutes} sont confirmées.",
            "Votre temps donné est confirmé.",
        ),
        "en": (
            "Your {minutes} of {performed_on} are confirmed.",
            "Your {minutes} are confirmed.",
            "The time you gave is confirmed.",
        ),
    },
    "contribution.disputed": {
        "fr": (
            "Une autre durée est proposée pour le temps noté : {minutes}.",
            "Le temps noté est contesté.",
        ),
        "en": (
            "Another duration is proposed for the time logged: {minutes}.",
            "The time logged is disputed.",
        ),
    },
    "contribution.ruled": {
        "fr": (
            "Un médiateur a tranché sur le temps noté : {minutes}.",
            "Un médiateur a tranché sur le temps noté.",
        ),
        "en": (
            "A mediator has ruled on the time logged: {minutes}.",
            "A mediator has ruled on the time logged.",
        ),
    },
    "contribution.reversed": {
        "fr": (
            "Une contribution de {minutes} a été annulée.",
            "Une contribution a été annulée.",
        ),
        "en": ("A contribution of {minutes} was taken back.", "A contribution was taken back."),
    },
    "contribution.withdrawn": {
        "fr": (
            "{minutes} notées ont été retirées : plus rien à confirmer.",
            "Le temps noté a été retiré : plus rien à confirmer.",
        ),
        "en": (
            "{minutes} logged were withdrawn: nothing left to confirm.",
            "The time logged was withdrawn: nothing left to confirm.",
        ),
    },
    "pledge.met": {
        "fr": (
            "Votre engagement de {period} est tenu : merci !",
            "Votre engagement du mois est tenu : merci !",
        ),
        "en": (
            "Your pledge for {period} is met: thank you!",
            "Your pledge for the month is met: thank you!",
        ),
    },
    "pledge.short": {
        "fr": (
            (
                "Il manque {missing_minutes} à votre engagement de {period} :"
                " vous avez jusqu'au {until}."
            ),
            "Il manque {missing_minutes} à votre engagement de {period}.",
            "Il manque {missing_minutes} à votre engagement.",
            "Il manque du temps à votre engagement.",
        ),
        "en": (
            "Your pledge for {period} is short of {missing_minutes}: you have until {until}.",
            "Your pledge for {period} is short of {missing_minutes}.",
            "Your pledge is short of {missing_minutes}.",
            "Your pledge is short of some time.",
        ),
    },
    "standing.changed": {
        "fr": ("Votre situation est maintenant : {standing}.", "Votre situation a changé."),
        "en": ("Your standing is now: {standing}.", "Your standing has changed."),
    },
    "solidarity.granted": {
        "fr": (
            "Le fonds de solidarité vous a donné {minutes}.",
            "Le fonds de solidarité vous a aidé.",
        ),
        "en": (
            "The solidarity fund gave you {minutes}.",
            "The solidarity fund has helped you.",
        ),
    },
    "solidarity.declined": {
        "fr": ("Votre demande au fonds de solidarité n'a pas été retenue.",),
        "en": ("Your request to the solidarity fund was not granted.",),
    },
    "rent_credit.made": {
        "fr": (
            "{minutes} ont été données pour {credit_cents} de loyer.",
            "{minutes} ont été données pour le loyer.",
            "Du temps a été donné pour le loyer.",
        ),
        "en": (
            "{minutes} were given for {credit_cents} of rent.",
            "{minutes} were given towards the rent.",
            "Time was given towards the rent.",
        ),
    },
    "exchange.requested": {
        "fr": ("Quelqu'un répond à votre annonce.",),
        "en": ("Somebody answers your listing.",),
    },
    "exchange.agreed": {
        "fr": ("Votre demande est acceptée.",),
        "en": ("Your request is accepted.",),
    },
    "exchange.declined": {
        "fr": ("Votre demande n'a pas été retenue.",),
        "en": ("Your request was declined.",),
    },
    "exchange.cancelled": {
        "fr": ("Un échange a été annulé.",),
        "en": ("An exchange was cancelled.",),
    },
    "exchange.done": {
        "fr": ("Un échange est terminé.",),
        "en": ("An exchange is done.",),
    },
    "exchange.handed_over": {
        "fr": (
            "L'objet prêté a été remis, à rendre le {until}.",
            "L'objet prêté a été remis.",
        ),
        "en": (
            "The object lent was handed over, to be returned on {until}.",
            "The object lent was handed over.",
        ),
    },
    "exchange.returned": {
        "fr": ("L'objet prêté est rendu, la caution est libérée.",),
        "en": ("The object lent is back, the deposit is released.",),
    },
    "exchange.damaged": {
        "fr": (
            "Un dommage est signalé sur l'objet prêté : {minutes} demandées.",
            "Un dommage est signalé sur l'objet prêté.",
        ),
        "en": (
            "Damage to the object lent is reported: {minutes} asked for.",
            "Damage to the object lent is reported.",
        ),
    },
    "exchange.ruled": {
        "fr": (
            "Un médiateur a tranché sur l'échange : {minutes}.",
            "Un médiateur a tranché sur l'échange.",
        ),
        "en": (
            "A mediator has ruled on the exchange: {minutes}.",
            "A mediator has ruled on the exchange.",
        ),
    },
    "exchange.late": {
        "fr": (
            "L'objet prêté devait être rendu le {until}.",
            "L'objet prêté devait déjà être rendu.",
        ),
        "en": (
            "The object lent was to be returned on {until}.",
            "The object lent was to be returned by now.",
        ),
    },
    "listing.match": {
        "fr": ("Une annonce correspond à la vôtre.",),
        "en": ("A listing matches yours.",),
    },
    "hold.placed": {
        "fr": ("{minutes} sont réservées.", "Du temps est réservé."),
        "en": ("{minutes} are set aside.", "Time is set aside."),
    },
    "hold.expired": {
        "fr": (
            "La réservation de {minutes} a expiré : elles sont de nouveau libres.",
            "Une réservation de temps a expiré.",
        ),
        "en": (
            "The hold of {minutes} has expired: they are free again.",
            "A hold of time has expired.",
        ),
    },
    "transfer.received": {
        "fr": ("Vous avez reçu {minutes}.", "Vous avez reçu du temps."),
        "en": ("You have received {minutes}.", "You have received time."),
    },
    "clearing.settled": {
        "fr": (
            "Vos {minutes} sont arrivées dans l'autre ville.",
            "Votre temps est arrivé dans l'autre ville.",
        ),
        "en": (
            "Your {minutes} have arrived in the other city.",
            "Your time has arrived in the other city.",
        ),
    },
    "clearing.returned": {
        "fr": (
            "L'autre ville n'a pas pris vos {minutes} : elles vous sont rendues.",
            "L'autre ville n'a pas pris votre temps : il vous est rendu.",
        ),
        "en": (
            "The other city did not take your {minutes}: they are back with you.",
            "The other city did not take your time: it is back with you.",
        ),
    },
    "clearing.received": {
        "fr": (
            "Vous avez reçu {minutes} d'une autre ville.",
            "Vous avez reçu du temps d'une autre ville.",
        ),
        "en": (
            "You have received {minutes} from another city.",
            "You have received time from another city.",
        ),
    },
    "limit.changed": {
        "fr": ("La limite de votre compte a changé.",),
        "en": ("The limit of your account has changed.",),
    },
}


def write_minutes(minutes: int) -> str:
    """As people write it: "45 min", "2 h", "1 h 30"; the same in both languages."""
    hours, rest = divmod(abs(minutes), 60)
    sign = "-" if minutes < 0 else ""
    if not hours:
        return f"{sign}{rest} min"
    return f"{sign}{hours} h {rest:02}" if rest else f"{sign}{hours} h"


def write_day(day: date, language: Language) -> str:
    number = "1er" if language == "fr" and day.day == 1 else str(day.day)
    return f"{number} {MONTHS[language][day.month - 1]} {day.year}"


def write_month(year: int, month: int, language: Language) -> str:
    return f"{MONTHS[language][month - 1]} {year}"


def write_cents(cents: int, language: Language) -> str:
    euros, rest = divmod(abs(cents), 100)
    sign = "-" if cents < 0 else ""
    return f"{sign}{euros},{rest:02} €" if language == "fr" else f"{sign}€{euros}.{rest:02}"


def read_day(value: Any) -> date | None:
    """A date from JSON, also the day of an instant."""
    if not isinstance(value, str):
        return None
    try:
        return date.fromisoformat(value[:10])
    except ValueError:
        return None


def read_month(value: Any) -> tuple[int, int] | None:
    """`2026-11`, or any day of the month."""
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", value, re.ASCII):
        return None
    year, month = int(value[:4]), int(value[5:7])
    return (year, month) if 1 <= month <= 12 else None


def facts(subject: Mapping[str, Any], language: Language) -> dict[str, str]:
    """What a sentence may name, written out. Anything of another type or shape is left out."""
    written = {}
    for name, value in subject.items():
        is_number = type(value) is int and abs(value) <= MINUTES_MAX
        if is_number and (name == "minutes" or name.endswith("_minutes")):
            written[name] = write_minutes(value)
        elif is_number and name.endswith("_cents"):
            written[name] = write_cents(value, language)
        elif name == "standing" and isinstance(value, str) and value in STANDINGS[language]:
            written[name] = STANDINGS[language][value]
        elif name in ("period", "month") and (month := read_month(value)):
            written["period"] = write_month(*month, language)
        elif (name.endswith("_on") or name == "until") and (day := read_day(value)):
            written[name] = write_day(day, language)
    return written


def sentence(kind: str, subject: Mapping[str, Any], language: Language) -> str:
    """The notice in words; an unknown kind gets general ones."""
    known = facts(subject, language)
    for candidate in CATALOGUE.get(kind, GENERIC)[language]:
        names = set(re.findall(r"\{(\w+)\}", candidate))
        if names <= known.keys():
            return candidate.format(**{name: known[name] for name in names})
    return GENERIC[language][0]


def discreet_sentence(kind: str, subject: Mapping[str, Any], language: Language) -> str:
    """The notice as it may leave the app: on a lock screen, in a shared mailbox."""
    if kind.startswith(DISCREET):
        return GENERIC[language][0]
    return sentence(kind, subject, language)


def general_sentence(kind: str, language: Language) -> str:
    """What it is about without numbers and days: for the subject of an e-mail."""
    return discreet_sentence(kind, {}, language)
