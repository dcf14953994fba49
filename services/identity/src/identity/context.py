"""What the routes of one process share, built once by `app`."""

from dataclasses import dataclass

from common.clock import Clock
from common.db import Pool
from copass_tap.ntag424 import KeySet, load_keys
from identity.keys import KeyRing
from identity.passwords import Passwords
from identity.settings import IdentitySettings
from identity.throttle import LoginThrottle
from identity.vault import Vault


@dataclass(frozen=True, slots=True)
class Context:
    settings: IdentitySettings
    pool: Pool
    clock: Clock
    vault: Vault
    ring: KeyRing
    passwords: Passwords
    throttle: LoginThrottle
    card_keys: tuple[KeySet, ...]


def build_context(settings: IdentitySettings, pool: Pool, clock: Clock) -> Context:
    vault = Vault(settings.key_secret.get_secret_value())
    return Context(
        settings=settings,
        pool=pool,
        clock=clock,
        vault=vault,
        ring=KeyRing(pool, vault, clock),
        passwords=Passwords(
            at_once=settings.password_checks_at_once,
            waiting_max=settings.password_checks_waiting_max,
        ),
        throttle=LoginThrottle(
            pool,
            vault,
            clock,
            pair_max=settings.login_failures_pair_max,
            address_max=settings.login_failures_address_max,
            login_max=settings.login_failures_login_max,
        ),
        card_keys=load_keys(settings.card_keys),
    )
