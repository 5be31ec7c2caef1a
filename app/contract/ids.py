"""Tagged, time-sortable IDs: `<tag>_01` and 22 base58 characters (contract, 0.1).

The 22 characters hold 128 bits: 48 bits of milliseconds, then 80 bits that are random at the start of a
millisecond. Within it the last four characters count upwards, so that IDs made by one process sort in the order they
were made, and cost a fifth of what encoding each of them would. The base58 alphabet is in ASCII order, therefore the
text sorts as the number does.
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
ERASURE = "erasure"
REQUEST = "req"

BOOTSTRAP_API_KEY_ID = "apikey_01".ljust(22, "1") + "bootstrap"
"""The author of what is written with the secret in `MEMSTORE_BOOTSTRAP_API_KEY`."""

_COUNTED_CHARACTERS = 4
_COUNT_END = 58**_COUNTED_CHARACTERS

_lock = threading.Lock()
_random = random.Random()  # noqa: S311 - seeded by the system; an ID must be unique, it need not be secret
_millisecond = 0
_prefix = ""
_count = 0


def _begin_anew() -> None:
    """A forked process must not go on with its parent's numbers."""
    global _millisecond
    _random.seed()
    _millisecond = 0


os.register_at_fork(after_in_child=_begin_anew)


def _encode(number: int) -> str:
    pairs = []
    for _ in range(_LENGTH // 2):
        number, pair = divmod(number, 3364)
        pairs.append(_PAIRS[pair])
    return "".join(reversed(pairs))


def new(tag: str) -> str:
    """A fresh ID with this tag, greater than every other one this process made."""
    global _millisecond, _prefix, _count
    now = time.time_ns() // 1_000_000
    with _lock:
        _count += 1
        if now > _millisecond or _count == _COUNT_END:
            # Rather a millisecond that has not come yet than an ID out of order.
            _millisecond = max(now, _millisecond + 1)
            # The top random bit stays clear, so that counting can't run into the next millisecond.
            number = _millisecond << _RANDOM_BITS | _random.getrandbits(_RANDOM_BITS - 1)
            _prefix = _encode(number)[:-_COUNTED_CHARACTERS]
            _count = number % (_COUNT_END // 2)
        high, low = divmod(_count, 3364)
        return f"{tag}_01{_prefix}{_PAIRS[high]}{_PAIRS[low]}"
