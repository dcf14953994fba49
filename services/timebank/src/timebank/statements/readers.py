"""What of a statement's line its reader is shown. Pure.

Owners and stewards see all of it. Others do not see the words, nor who gave to the solidarity fund
or was helped by it: a line of the fund names no transfer that would lead there, and to an auditor,
who may read any account, a member's line of it is a transfer like another.
"""

from dataclasses import replace

from timebank.domain import COMMON_KINDS, Account, Actor
from timebank.statements.store import StatementLine


def shown_to(actor: Actor, account: Account, line: StatementLine) -> StatementLine:
    """The line as the reader may see it."""
    if actor.may_pay_from(account):
        return line
    line = replace(line, memo=None)
    if line.kind != "solidarity":
        return line
    if account.kind in COMMON_KINDS:
        return replace(line, transfer_id=None)
    return replace(line, kind="transfer")
