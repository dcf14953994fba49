"""Nettings between the cities whose logs are here: what one moves with another, that one moves
back under the same id."""

from collections.abc import Mapping

from copass_verify.crossings import Fault, Ledger
from copass_verify.entries import Netted


def pair_nettings(
    netted: Mapping[str, Mapping[str, Netted]], ledgers: Mapping[str, Ledger]
) -> list[Fault]:
    """What does not fit. `netted`: by city and netting. What a log cannot show yet is not held
    against it."""
    faults = []
    for city, nettings in netted.items():
        for netting_id, ours in nettings.items():
            for peer, minutes in ours.moved.items():
                if peer not in netted:
                    continue
                theirs = netted[peer].get(netting_id)
                if theirs is None and not ledgers[peer].tells_of(ours.posted_at):
                    continue
                back = theirs.moved.get(city, 0) if theirs else 0
                if back != -minutes:
                    what = (
                        f"netting {netting_id} moves {minutes} minutes with {peer},"
                        f" which moves {back} back"
                    )
                    faults.append(Fault(city, ours.index, ours.transfer, what))
    return faults
