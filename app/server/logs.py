"""What the server prints: one line for each event, readable or JSON, with the ID of the request it belongs to.

A line never holds content, paths, query strings, names or secrets, whatever went wrong: what an exception says of
itself may repeat what a caller sent, so of one that nobody expected only its type and its place in the code are
printed, unless the level is `debug`. Routes appear as templates, stores by their IDs.
"""

import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from app.contract.calls import REQUEST_ID
from app.contract.showing import escaped
from app.settings import Settings

requests_log = logging.getLogger("app.http.requests")
"""The lines about answers."""

_uncaught_log = logging.getLogger(__name__)

_FIELDS = ("method", "route", "status", "duration_ms")
_WITHHELD = "(its text is printed at MEMSTORE_LOG_LEVEL=debug)"
_KNOWN = {"app", "uvicorn", "alembic", "asyncio"}
"""Whose messages are known to repeat nothing that a caller sent; of asyncio's, the first line."""
_LONGEST = 2_000
"""Characters of one line of a text."""


def answered(request_id: str, method: str, route: str, status: int, seconds: float) -> None:
    """Print the line about an answer. route: the template, or `none` where no route has the path."""
    requests_log.log(
        logging.ERROR if status == 500 else logging.WARNING if status > 500 else logging.INFO,
        "answered",
        extra={
            "request_id": request_id,
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": round(seconds * 1_000, 3),
        },
    )


class _Lines(logging.Formatter):
    """What both formats share: which fields a line has."""

    def __init__(self, *, with_texts: bool) -> None:
        """with_texts: also print what exceptions say of themselves."""
        super().__init__()
        self._with_texts = with_texts

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The line's fields by name, in order; without those that it has not."""
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
        }
        request_id = getattr(record, "request_id", None) or REQUEST_ID.get()
        if request_id is not None:
            found["request_id"] = request_id
        found.update((name, value) for name in _FIELDS if (value := getattr(record, name, None)) is not None)
        if record.exc_info and record.exc_info[1] is not None:
            found["exception"] = "".join(self._trace(record.exc_info[1]))
        return found

    def _message(self, record: logging.LogRecord) -> str:
        if self._with_texts:
            return escaped(record.getMessage(), _LONGEST)
        if record.name.partition(".")[0] not in _KNOWN:
            # What a library says of its input is in the arguments, or was put into the text before.
            said = f"{record.msg} " if record.args else ""
            return escaped(f"{said}({record.filename}:{record.lineno}) {_WITHHELD}", _LONGEST)
        message = record.getMessage()
        # asyncio adds lines that show its objects: a task with its result, or with what its exception says.
        return escaped(message.partition("\n")[0] if record.name == "asyncio" else message.rstrip("\n"), _LONGEST)

    def _trace(self, error: BaseException) -> Iterator[str]:
        if self._with_texts:
            for text in traceback.format_exception(error):
                first, *others = text.splitlines()
                yield f"{escaped(first, _LONGEST)}\n"
                yield from (f"  {escaped(line, _LONGEST)}\n" for line in others)  # None begins as a line of the log.
            return
        seen: set[int] = set()
        link: BaseException | None = error
        while link is not None and id(link) not in seen:
            seen.add(id(link))
            yield f"{type(link).__module__}.{type(link).__qualname__} {_WITHHELD}\n"
            # The lines of code are ours and the libraries'; they hold names, not values.
            yield from traceback.format_list(traceback.extract_tb(link.__traceback__))
            link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


class JsonLines(_Lines):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(self.fields(record), ensure_ascii=False, default=str)


class TextLines(_Lines):
    """Readable lines: time, level, logger, message, then the other fields as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; below it, where an exception came from."""
        found = self.fields(record)
        head = f"{found.pop('time')} {found.pop('level').upper():7} {found.pop('logger')}: {found.pop('message')}"
        trace = found.pop("exception", "")
        line = " ".join([head, *(f"{name}={value}" for name, value in found.items())])
        return f"{line}\n{trace.rstrip()}" if trace else line


def catch_what_bypasses_them() -> None:
    """Let warnings, and exceptions that nobody is there to catch, take the way of every other line."""
    logging.captureWarnings(True)
    threading.excepthook = lambda found: _uncaught("a thread ended", found.exc_value)
    sys.unraisablehook = lambda found: _uncaught("an exception could not be raised", found.exc_value)


def _uncaught(what: str, error: BaseException | None) -> None:
    _uncaught_log.error(what, exc_info=error)


def configuration(settings: Settings) -> dict[str, Any]:
    """For `logging.config.dictConfig`: what uvicorn gives to each of its processes.

    The level is that of our own and uvicorn's loggers. Other libraries are heard from `warning` on: what they print
    below may hold credentials.
    """
    formatter = JsonLines if settings.log_format == "json" else TextLines
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": formatter, "with_texts": settings.log_level == "debug"}},
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "lines", "stream": "ext://sys.stderr"}},
        "root": {"level": max(level, "WARNING", key=logging.getLevelName), "handlers": ["out"]},
        "loggers": {"app": {"level": level}, "uvicorn": {"level": level}, "alembic": {"level": "WARNING"}},
    }
