"""The client of Memstore for programs: `Memstore` for threads, `AsyncMemstore` for asyncio, and what they raise."""

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .async_client import AsyncMemstore
    from .async_feed import AsyncFeed
    from .client import Memstore
    from .failures import (
        ApiError,
        Away,
        Changed,
        ChangesExpired,
        Forbidden,
        Held,
        Missing,
        PathTaken,
        Rejected,
        TimedOut,
        Unauthorized,
    )
    from .feed import Feed
    from .shapes import Actor, Change, Memory, MemoryStore, MemoryVersion, Snapshot
else:
    # Each is imported when it is first used: commands that need one module of this package start without the others.
    from importlib import import_module

    _WHERE = {
        "async_client": ("AsyncMemstore",),
        "async_feed": ("AsyncFeed",),
        "client": ("Memstore",),
        "failures": (
            "ApiError", "Away", "Changed", "ChangesExpired", "Forbidden", "Held", "Missing", "PathTaken", "Rejected",
            "TimedOut", "Unauthorized",
        ),
        "feed": ("Feed",),
        "shapes": ("Actor", "Change", "Memory", "MemoryStore", "MemoryVersion", "Snapshot"),
    }  # fmt: skip
    _MODULES = {name: module for module, names in _WHERE.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(import_module(f".{_MODULES[name]}", __name__), name))

    def __dir__() -> list[str]:
        return __all__


__all__ = [
    "Actor",
    "ApiError",
    "AsyncFeed",
    "AsyncMemstore",
    "Away",
    "Change",
    "Changed",
    "ChangesExpired",
    "Feed",
    "Forbidden",
    "Held",
    "Memory",
    "MemoryStore",
    "MemoryVersion",
    "Memstore",
    "Missing",
    "PathTaken",
    "Rejected",
    "Snapshot",
    "TimedOut",
    "Unauthorized",
    "__version__",
]
