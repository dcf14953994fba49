"""E-mail, and the channels that this installation has."""

import ssl
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import Literal
from urllib.parse import unquote, urlsplit
from uuid import UUID

import aiosmtplib

from identity.domain import Malformed, normalise_email
from identity.notices.domain import Away, Language, Letter, Outcome, Refused, Sent
from identity.notices.texts import discreet_sentence, general_sentence

SMTP_TIMEOUT_S = 30
LINES_MAX = 20

Security = Literal["none", "tls", "starttls"]
SCHEMES: dict[str, tuple[Security, int]] = {
    "smtp": ("none", 25),
    "smtps": ("tls", 465),
    "smtp+starttls": ("starttls", 587),
}

SUBJECT_DIGEST: dict[Language, str] = {
    "fr": "Copass : votre journée",
    "en": "Copass: your day",
}
SUBJECT: dict[Language, str] = {"fr": "Copass : {text}", "en": "Copass: {text}"}
GREETING: dict[Language, str] = {"fr": "Bonjour,", "en": "Hello,"}
MORE: dict[Language, str] = {"fr": "… et {n} de plus.", "en": "… and {n} more."}
LINK: dict[Language, str] = {"fr": "Tout lire : {url}", "en": "Read all: {url}"}
FOOTER: dict[Language, str] = {
    "fr": "Vous choisissez dans Copass ce qui vous est envoyé : {url}",
    "en": "You choose in Copass what is sent to you: {url}",
}


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mail server. With a user name it wants a password, and never in clear."""

    host: str
    port: int
    security: Security
    user: str | None


def read_smtp_url(url: str) -> Mailbox:
    """`smtp://`, `smtps://` or `smtp+starttls://`, then `[user@]host[:port]`.

    Raises ValueError, which does not repeat the address: the password has a setting of its own.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError("must begin with smtp://, smtps:// or smtp+starttls://")
    security, port = SCHEMES[parts.scheme]
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must be of the form scheme://[user@]host[:port]")
    if parts.password is not None:
        raise ValueError("must not hold the password, which has a setting of its own")
    user = unquote(parts.username) if parts.username else None
    if user and security == "none":
        raise ValueError("would send a password in clear: use smtps:// or smtp+starttls://")
    return Mailbox(parts.hostname, parts.port or port, security, user)


def read_sender(text: str) -> Address:
    """`Name <address>` or an address. Raises ValueError."""
    name, bracket, rest = text.rpartition("<")
    address = rest.removesuffix(">") if bracket else text
    try:
        return Address(display_name=name.strip(), addr_spec=normalise_email(address.strip()))
    except (Malformed, MessageError, ValueError) as error:
        raise ValueError("must be `name@domain` or `Name <name@domain>`") from error


class Mail:
    """Sends e-mails through one server."""

    def __init__(
        self,
        mailbox: Mailbox,
        *,
        password: str,
        sender: Address,
        portal_url: str,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = SMTP_TIMEOUT_S,
    ) -> None:
        self._mailbox = mailbox
        self._password = password
        self._sender = sender
        self._portal_url = portal_url.rstrip("/")
        self._tls = tls or ssl.create_default_context()
        self._timeout_s = timeout_s

    async def send(self, letter: Letter) -> Outcome:
        """One connection, one message: it is taken or refused as a whole."""
        try:
            to = normalise_email(letter.email or "")
        except Malformed:
            return Refused("address_malformed")
        message = compose(letter, to=to, sender=self._sender, portal_url=self._portal_url)
        box = self._mailbox
        try:
            await aiosmtplib.send(
                message,
                sender=self._sender.addr_spec,
                recipients=[to],
                hostname=box.host,
                port=box.port,
                username=box.user,
                password=self._password if box.user else None,
                use_tls=box.security == "tls",
                start_tls=box.security == "starttls",
                tls_context=self._tls if box.security != "none" else None,
                timeout=self._timeout_s,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            return judge_code(error.recipients[0].code, about_message=True)
        except aiosmtplib.SMTPAuthenticationError as error:
            # Ours to mend: no fault of this message.
            return judge_code(error.code, about_message=False)
        except (aiosmtplib.SMTPDataError, aiosmtplib.SMTPRecipientRefused) as error:
            return judge_code(error.code, about_message=True)
        except aiosmtplib.SMTPResponseException as error:
            return judge_code(error.code, about_message=False)
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            # ValueError: a server that speaks something else.
            return Away(type(error).__name__)
        return Sent()


def judge_code(code: int, *, about_message: bool) -> Outcome:
    """RFC 5321, section 4.2.1: 5yz is for good. What the server says of itself may change."""
    if about_message and 500 <= code < 600:
        return Refused(f"smtp_{code}")
    return Away(f"smtp_{code}")


def message_id(delivery_id: UUID, sender: Address) -> str:
    """The same at each attempt, so that a message that came twice is known for one."""
    return f"<{delivery_id}@{sender.domain}>"


def compose(letter: Letter, *, to: str, sender: Address, portal_url: str) -> EmailMessage:
    """The e-mail of a notice, or of a day: plain text, in general words, no names and no notes.

    Only sentences of ours, dates and numbers go into it; the address was normalised. Raises
    ValueError rather than let a line break into a header.
    """
    language = letter.language
    first = letter.notices[0]
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = Address(addr_spec=to)
    message["Subject"] = (
        SUBJECT_DIGEST[language]
        if letter.is_digest
        else SUBJECT[language].format(text=general_sentence(first.kind, language))
    )
    message["Date"] = letter.now
    message["Message-ID"] = message_id(letter.delivery_id, sender)
    # RFC 3834: no out-of-office answer to this, please.
    message["Auto-Submitted"] = "auto-generated"
    message["Content-Language"] = language
    preferences_url = f"{portal_url}/notices/preferences"
    message["List-Unsubscribe"] = f"<{preferences_url}>"
    lines = [
        discreet_sentence(notice.kind, notice.subject, language)
        for notice in letter.notices[:LINES_MAX]
    ]
    if letter.is_digest:
        lines = [f"- {line}" for line in lines]
    if len(letter.notices) > LINES_MAX:
        lines.append(MORE[language].format(n=len(letter.notices) - LINES_MAX))
    message.set_content(
        "\n".join(
            [
                GREETING[language],
                "",
                *lines,
                "",
                LINK[language].format(url=f"{portal_url}/notices"),
                "",
                "-- ",
                FOOTER[language].format(url=preferences_url),
                "",
            ]
        )
    )
    return message
