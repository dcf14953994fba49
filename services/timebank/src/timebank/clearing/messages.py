"""What cities say to each other: JSON, signed over its canonical form (RFC 8785).

    {"version": 1, "message_id", "kind", "from_city", "to_city", "sent_at", "body": {…},
     "signature": base64 of Ed25519 over "copass clearing v1\\n" and the rest}

Numbers are integers below 2^53, so that every reader has the same ones.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.fields import MINUTES_MAX
from timebank.clearing.domain import Decision, Prepare, RefusalReason
from timebank.clearing.keys import is_signed_by

PREFIX = b"copass clearing v1\n"

CityId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,39}$")]
MinutesOrNone = Annotated[int, Field(strict=True, ge=0, le=MINUTES_MAX)]
SignedMinutes = Annotated[int, Field(strict=True, ge=-MINUTES_MAX, le=MINUTES_MAX)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PrepareBody(Strict):
    """`query`: the same again, because no answer was heard."""

    kind: Literal["prepare", "query"]
    transfer_id: UUID
    minutes: Annotated[int, Field(strict=True, ge=1, le=MINUTES_MAX)]
    payee: UUID
    deadline: AwareDatetime
    reverses: UUID | None = None


class AnswerBody(Strict):
    kind: Literal["accepted", "rejected"]
    transfer_id: UUID
    reason: RefusalReason | None = None
    decided_at: AwareDatetime


class TermsBody(Strict):
    """Limits as the sender sees them: `limit_out_minutes` is what may be owed for what it sends."""

    kind: Literal["agreement.proposed", "agreement.accepted"]
    agreement_id: UUID
    limit_out_minutes: MinutesOrNone
    limit_in_minutes: MinutesOrNone
    soft_percent: Annotated[int, Field(strict=True, ge=1, le=100)]


class ChangeBody(Strict):
    kind: Literal["agreement.suspended", "agreement.resumed", "agreement.ended"]
    agreement_id: UUID


class ReversalBody(Strict):
    """The sender's stewards agree that a transfer be taken back."""

    kind: Literal["reversal.agreed"]
    transfer_id: UUID


class MoveBody(Strict):
    debtor: CityId
    creditor: CityId
    minutes: Annotated[int, Field(strict=True, ge=1, le=MINUTES_MAX)]
    owed_minutes: Annotated[int, Field(strict=True, ge=1, le=MINUTES_MAX)]


class PlanBody(Strict):
    """What the sender proposes to net, and decides about."""

    kind: Literal["netting.proposed"]
    netting_id: UUID
    moves: Annotated[list[MoveBody], Field(max_length=200)]
    expires_at: AwareDatetime


class PlanAnswerBody(Strict):
    """The sender's stewards agree to the plan of this digest, for good; or do not."""

    kind: Literal["netting.agreed", "netting.refused"]
    netting_id: UUID
    digest: Digest


class PlanDecisionBody(Strict):
    """What was decided of a plan. `agreements`: the signed messages of all other cities in it; the
    signature under this one is the decider's own agreement."""

    kind: Literal["netting.decided"]
    netting_id: UUID
    digest: Digest
    committed: bool
    agreements: Annotated[list[dict[str, Any]], Field(max_length=400)]


class PlanPassedBody(Strict):
    """A decision that the sender heard, as the decider signed it."""

    kind: Literal["netting.passed"]
    netting_id: UUID
    decision: dict[str, Any]


class PairAskedBody(Strict):
    """Asks how the receiver's account with the sender moved after its posting `since`."""

    kind: Literal["pair.asked"]
    question_id: UUID
    since: Annotated[int, Field(strict=True, ge=0)]


class MovementBody(Strict):
    """One posting of the sender's clearing account: `id` is that of the transfer between the
    cities, or of the netting."""

    version: Annotated[int, Field(strict=True, ge=1)]
    kind: Literal["settlement", "arrival", "netting", "other"]
    id: UUID
    minutes: SignedMinutes


class WaitingBody(Strict):
    """What the sender waits for: a transfer that it sent, a netting that it agreed to."""

    kind: Literal["transfer", "netting"]
    id: UUID
    minutes: SignedMinutes


class PairSaidBody(Strict):
    """The sender's position with the receiver in one snapshot: after `version` postings, those of
    them that come after `since` (`complete`: all of these), and what is in flight
    (`waiting_complete`: all of that)."""

    kind: Literal["pair.said"]
    question_id: UUID
    since: Annotated[int, Field(strict=True, ge=0)]
    version: Annotated[int, Field(strict=True, ge=0)]
    position_minutes: SignedMinutes
    in_transit_minutes: MinutesOrNone
    movements: Annotated[list[MovementBody], Field(max_length=500)]
    complete: bool
    waiting: Annotated[list[WaitingBody], Field(max_length=500)]
    waiting_complete: bool
    log_size: Annotated[int, Field(strict=True, ge=0)]


Body = Annotated[
    PrepareBody
    | AnswerBody
    | TermsBody
    | ChangeBody
    | ReversalBody
    | PlanBody
    | PlanAnswerBody
    | PlanDecisionBody
    | PlanPassedBody
    | PairAskedBody
    | PairSaidBody,
    Field(discriminator="kind"),
]


class Envelope(Strict):
    version: Literal[1]
    message_id: UUID
    from_city: CityId
    to_city: CityId
    sent_at: AwareDatetime
    body: Body
    signature: Annotated[str, Field(max_length=100)]


ENVELOPE: TypeAdapter[Envelope] = TypeAdapter(Envelope)


class WrongMessage(ValueError):
    """Not a message of ours, or not from whom it says."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was read; `raw` is what the signature is over."""

    envelope: Envelope
    raw: dict[str, Any]

    @property
    def body(self) -> Any:
        return self.envelope.body

    @property
    def from_city(self) -> str:
        return self.envelope.from_city

    @property
    def to_city(self) -> str:
        return self.envelope.to_city

    @property
    def transfer_id(self) -> UUID | None:
        return getattr(self.envelope.body, "transfer_id", None)

    def is_from(self, public_key: bytes) -> bool:
        """Whether the holder of this key signed it."""
        try:
            signature = base64.b64decode(self.envelope.signature, validate=True)
        except (ValueError, binascii.Error):
            return False
        return is_signed_by(public_key, signature, signed_bytes(self.raw))


def signed_bytes(raw: dict[str, Any]) -> bytes:
    return PREFIX + rfc8785.dumps({k: v for k, v in raw.items() if k != "signature"})


def read_message(raw: dict[str, Any]) -> Message:
    """Raises WrongMessage for anything of another form; who signed it is still to be looked at."""
    try:
        return Message(ENVELOPE.validate_python(raw), raw)
    except (ValidationError, rfc8785.CanonicalizationError) as error:
        raise WrongMessage(str(error)) from error


def write_message(
    key: Ed25519PrivateKey,
    *,
    message_id: UUID,
    from_city: str,
    to_city: str,
    body: BaseModel,
    now: datetime,
) -> Message:
    """A message of ours, signed."""
    raw: dict[str, Any] = {
        "version": 1,
        "message_id": str(message_id),
        "from_city": from_city,
        "to_city": to_city,
        "sent_at": now.isoformat(),
        "body": body.model_dump(mode="json", exclude_none=True),
    }
    raw["signature"] = base64.b64encode(key.sign(signed_bytes(raw))).decode()
    return read_message(raw)


def to_prepare(message: Message) -> Prepare:
    body = message.body
    return Prepare(
        transfer_id=body.transfer_id,
        from_city=message.from_city,
        to_city=message.to_city,
        minutes=body.minutes,
        payee=body.payee,
        deadline=body.deadline,
        reverses=body.reverses,
    )


def ask(prepare: Prepare, *, again: bool) -> PrepareBody:
    return PrepareBody(
        kind="query" if again else "prepare",
        transfer_id=prepare.transfer_id,
        minutes=prepare.minutes,
        payee=prepare.payee,
        deadline=prepare.deadline,
        reverses=prepare.reverses,
    )


def answer(decision: Decision) -> AnswerBody:
    return AnswerBody(
        kind="accepted" if decision.accepted else "rejected",
        transfer_id=decision.transfer_id,
        reason=decision.reason,
        decided_at=decision.decided_at,
    )
