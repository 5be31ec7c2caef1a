"""The one way to standard output and standard error: nothing from elsewhere gets there raw.

A terminal obeys control characters, and a line that somebody else wrote may look like one of ours. So commands print by
`echo` and `echo_json` only, a value from elsewhere inside a line is a `field`, and long output goes through `show`.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_UNSAFE = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"  # control characters, ESC and those of C1
    "\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069"  # what turns the direction of writing
    "\\u2028\\u2029"  # other line ends
    "\\u200b\\u2060-\\u2065\\u206a-\\u206f\\ufeff\\ufff9-\\ufffb\\U000e0000-\\U000e007f"  # what nobody can see
    "\\ud800-\\udfff"  # what can't be written as UTF-8
)
_CONTROL = re.compile(f"[{_UNSAFE}]")
_IN_A_FIELD = re.compile(f"[{_UNSAFE}\\t\\n]")


def is_terminal() -> bool:
    """Whether a person watches standard output."""
    return sys.stdout.isatty()


def width() -> int:
    """How many cells a line of the terminal has; COLUMNS says otherwise, and 80 where nothing says it."""
    return shutil.get_terminal_size((80, 24)).columns


def is_coloured() -> bool:
    """Whether to use colour: in a terminal, unless NO_COLOR is set or the terminal can't."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str) -> str:
    """A text in a style (`red`, `bold` …), where colour is used."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if is_coloured() and text else text


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def field(value: object) -> str:
    """A value from elsewhere as part of one line: control characters and line ends are shown as escapes."""
    return _IN_A_FIELD.sub(_escaped, str(value))


def visible(text: str) -> str:
    """A content that somebody else wrote: raw in a file or pipe, as escapes where a terminal would obey it."""
    return _CONTROL.sub(_escaped, text) if is_terminal() else text


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print lines of ours. Whatever is in them, none is obeyed by a terminal."""
    stream = sys.stderr if err else sys.stdout
    print(_CONTROL.sub(_escaped, text), end="\n" if nl else "", file=stream, flush=True)


def pairs(lines: Sequence[tuple[str, str]]) -> None:
    """Print names and values of one thing, a line each."""
    wide = max((len(field(name)) for name, _ in lines), default=0)
    for name, value in lines:
        echo(f"{field(name):<{wide}}  {field(value)}")


def progress(text: str) -> None:
    """Write over the last line of a terminal on standard error."""
    print(f"\r{field(text)}", end="", file=sys.stderr, flush=True)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that something long is under way: on standard error, and on a terminal only."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(field(what))):
        yield


def fail(message: str) -> None:
    """Say on standard error what went wrong. A further line of the message can't be taken for one of ours."""
    echo("memstore: " + "\n  ".join(message.splitlines()), err=True)


def as_json(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON that is safe to print, and means the same."""
    return safe_json(json.dumps(value, indent=indent, ensure_ascii=False))


def safe_json(text: str) -> str:
    """JSON with escapes for what a terminal would obey."""
    return _CONTROL.sub(_json_escaped, text)


def _json_escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else "\\u007f"


def echo_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON: indented for a person at a terminal, in one line for a program unless asked otherwise."""
    echo(as_json(value, indent=2 if is_terminal() else indent))


def show_bytes(content: bytes) -> None:
    """Print a content byte for byte into a file or pipe; a terminal gets it as `visible`."""
    if is_terminal():
        content = visible(content.decode("utf-8", "backslashreplace")).encode()
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


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
