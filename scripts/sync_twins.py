"""The modules of the client for threads, made from those for asyncio: the same code, without the waiting.

What differs between the two (sockets, streams, locks) is written by hand, in `exchange` and `async_exchange`.
"""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

CLIENT: Final = Path(__file__).parents[1] / "app" / "client"
TWINS: Final = {f"{name}.py": f"async_{name}.py" for name in ("client", "feed", "http1", "resources", "wire")}
"""Each module that is made, and what it is made from."""

_MADE = '"""{}\n\nMade by `scripts/sync_twins.py` from `{}`: change that one.\n"""'
_REPLACED: Final = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAwaitable\[([^\]]+)\]", r"\1"),
    (r"\bAwaitable, ", ""),
    (r"\bAsyncGenerator\[([^,\]]+), None\]", r"Generator[\1, None, None]"),
    (r"\baclosing\b", "closing"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\banext\(", "next("),
    (r"\b__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\basync_(?=exchange|client|feed|http1|resources|wire)", ""),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"^import asyncio$", "import time"),
    (r"from a task of the same loop", "from any thread"),
)


@cache
def render(module: str) -> str:
    """The text of a module that is made."""
    source = TWINS[module]
    text = (CLIENT / source).read_text(encoding="utf-8")
    _, first, rest = text.split('"""', 2)
    for pattern, by in _REPLACED:
        rest = re.sub(pattern, by, rest, flags=re.MULTILINE)
        first = re.sub(pattern, by, first, flags=re.MULTILINE)
    text = _MADE.format(first.splitlines()[0].replace(", for asyncio", ""), source) + rest
    for command in (["check", "--quiet", "--select=F401,I,UP028", "--fix", "--unsafe-fixes"], ["format", "--quiet"]):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, f"--stdin-filename={CLIENT / module}", "-"],
            input=text, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    return text
