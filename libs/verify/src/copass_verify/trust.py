"""Which keys are believed: those that were pinned, else those that the bundles agree on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from copass_verify.bundle import Bundle, CityFiles
from copass_verify.keys import ORIGIN_PREFIX, Chain, Key, read_chain
from copass_verify.notes import COSIGNS, Verifier

# Called with a city and what is wrong with its keys.
Tell = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Trust:
    """`logs`: the keys of cities whose logs are here; `others`: of those that only sign what others
    show. `cosigners`: all of them as cosigners."""

    logs: Mapping[str, Chain]
    others: Mapping[str, Chain]
    cosigners: tuple[Verifier, ...] = field(default=())

    def chains(self) -> dict[str, Chain]:
        return {**self.others, **self.logs}


def believe(bundles: Sequence[Bundle], pinned: Sequence[Verifier], tell: Tell) -> Trust:
    """The keys of every city that the bundles know; what is wrong with them is told once each."""
    shown: dict[str, list[CityFiles]] = {}
    for bundle in bundles:
        for files in bundle.cities:
            shown.setdefault(files.city, []).append(files)
    logs = {
        city: choose(city, [chain_of(one, tell) for one in copies], pinned, tell)
        for city, copies in shown.items()
    }
    told: dict[str, list[Chain]] = {}
    for bundle in bundles:
        for city, chain in cosigner_chains(bundle, tell).items():
            if city not in logs:
                told.setdefault(city, []).append(chain)
    others = {city: choose(city, chains, pinned, tell) for city, chains in told.items()}
    known = [*logs.values(), *others.values()]
    cosigners = tuple(key for chain in known for key in chain.verifiers(cosigns=True))
    return Trust(logs, others, cosigners)


def chain_of(files: CityFiles, tell: Tell) -> Chain:
    name = ORIGIN_PREFIX + files.city
    if files.key_list is not None:
        chain, wrong = read_chain(files.city, files.key_list)
    else:
        keys = [key.public_key for key in files.keys if key.name == name]
        chain = Chain(files.city, tuple(Key(key) for key in keys[:1]))
        wrong = None
        if not keys:
            wrong = "no key of its own is in the bundle"
        elif len(keys) > 1:
            wrong = "it has several keys, and the hand-over from one to the next is missing"
    if wrong:
        tell(files.city, wrong)
    return chain


def cosigner_chains(bundle: Bundle, tell: Tell) -> dict[str, Chain]:
    """What a bundle says of the keys of all cities, by city."""
    found: dict[str, Chain] = {}
    if bundle.cosigner_lists is not None:
        for city, listed in bundle.cosigner_lists.items():
            found[city], wrong = read_chain(city, listed)
            if wrong:
                tell(city, wrong)
        return found
    for key in bundle.cosigners:
        city = key.name.removeprefix(ORIGIN_PREFIX)
        if key.kind == COSIGNS and city != key.name:
            found.setdefault(city, Chain(city, (Key(key.public_key),)))
    return found


def choose(city: str, told: Sequence[Chain], pinned: Sequence[Verifier], tell: Tell) -> Chain:
    """The longest list, if all others are its beginning and what is pinned is in it.

    As both keys sign each hand-over, a pinned key vouches for those before and after it.
    """
    longest = max(told, key=lambda chain: len(chain.keys))
    mine = [key.public_key for key in pinned if key.name == ORIGIN_PREFIX + city]
    if mine and not any(longest.number_of(key) for key in mine):
        # The list is not believed at all.
        return Chain(city, tuple(Key(key) for key in mine[:1]))
    if not all(longest.begins_with(chain) for chain in told):
        tell(city, "the bundles have different keys for it")
        if not mine:
            return Chain(city, ())
    return longest
