"""Tagged, time-sortable IDs: `<tag>_01` and 22 base58 characters (contract, 0.1).

The 22 characters hold 128 bits: 48 bits of milliseconds, then 80 bits that are random at the start of a
millisecond and count upwards within it, so that IDs made by one process sort in the order they were made.
The base58 alphabet is in ASCII order, therefore the text sorts as the number does.
"""

import os
import random
import threading
import time

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_LENGTH = 22
_RANDOM_BITS = 80

STORE = "memstore"
MEMORY = "mem"
VERSION = "memver"
API_KEY = "apikey"
WORKSPACE = "wrkspc"
AGENT = "agent"
ENVIRONMENT = "env"
SESSION = "sesn"
SESSION_TOKEN = "stok"  # noqa: S105 - the ID of a token, which is not the token
REQUEST = "req"

BOOTSTRAP_API_KEY_ID = "apikey_01".ljust(22, "1") + "bootstrap"
"""The author of what is written with the secret in `MEMSTORE_BOOTSTRAP_API_KEY`."""

_lock = threading.Lock()
_random = random.Random()  # noqa: S311 - seeded by the system; an ID must be unique, it need not be secret
os.register_at_fork(after_in_child=_random.seed)
_last = 0


def _encode(number: int) -> str:
    pairs = []
    for _ in range(_LENGTH // 2):
        number, pair = divmod(number, 3364)
        pairs.append(_PAIRS[pair])
    return "".join(reversed(pairs))


def new(tag: str) -> str:
    """A fresh ID with this tag, greater than every other one this process made."""
    global _last
    now = time.time_ns() // 1_000_000
    with _lock:
        if _last >> _RANDOM_BITS >= now:
            _last += 1 + _random.getrandbits(32)
        else:
            # The top random bit stays clear so that counting can't run into the next millisecond.
            _last = now << _RANDOM_BITS | _random.getrandbits(_RANDOM_BITS - 1)
        number = _last
    return f"{tag}_01{_encode(number)}"
