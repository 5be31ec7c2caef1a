"""Long output for people: colour and a pager in a terminal, plain text anywhere else."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def is_terminal() -> bool:
    """Whether a person watches standard output."""
    return sys.stdout.isatty()


def is_coloured() -> bool:
    """Whether to use colour: in a terminal, unless NO_COLOR is set or the terminal can't."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str) -> str:
    """A text in a style (`red`, `bold` …), where colour is used."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if is_coloured() and text else text


def visible(text: str) -> str:
    """A text that somebody else wrote. A terminal must not obey it: there, control characters are shown as escapes."""
    if not is_terminal():
        return text
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def show(pieces: Iterable[str]) -> None:
    """Print a text; in a terminal through the program in PAGER, by default `less`."""
    command = shlex.split(os.environ.get("PAGER", "less"))
    if is_terminal() and command:
        environment = {"LESS": "FRX", **os.environ}
        try:
            pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)  # noqa: S603 - the user's choice
        except OSError:
            pass  # No such program: print.
        else:
            try:
                pager.communicate("".join(pieces).encode())
            except KeyboardInterrupt:
                pager.wait()
            return
    sys.stdout.flush()
    for piece in pieces:
        sys.stdout.buffer.write(piece.encode())
    sys.stdout.buffer.flush()
