"""What `memstore doctor` finds: one thing at a time, how it is, and what to do about it."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

State = Literal["ok", "warning", "failed", "skipped"]

_SECRETS = re.compile(r"(SECRET|PASSWORD|TOKEN|API_KEY|ACCESS_KEY)")
_USER_IN_URL = re.compile(r"(\w://)[^/\s@]+@")


def without_secrets(text: str) -> str:
    """The text without user names and passwords of URLs, and without what secret variables hold."""
    for name, value in os.environ.items():
        if _SECRETS.search(name) and len(value) >= 4:
            text = text.replace(value, "***")
    return _USER_IN_URL.sub(r"\1***@", text)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    """What it is about, in a word or two."""
    state: State
    message: str
    """How it is, with values and units."""
    advice: str = ""
    """What to do; empty where all is well."""


@dataclass(slots=True)
class Findings:
    """Everything that was looked at, in order."""

    found: list[Finding] = field(default_factory=list)

    def ok(self, check: str, message: str) -> None:
        """All is well."""
        self._add(Finding(check, "ok", message))

    def skipped(self, check: str, message: str) -> None:
        """It was not looked at."""
        self._add(Finding(check, "skipped", message))

    def warning(self, check: str, message: str, advice: str) -> None:
        """It works, but somebody should look, or something optional does not."""
        self._add(Finding(check, "warning", message, advice))

    def failed(self, check: str, message: str, advice: str) -> None:
        """It does not work."""
        self._add(Finding(check, "failed", message, advice))

    def _add(self, finding: Finding) -> None:
        clean = without_secrets
        self.found.append(Finding(finding.check, finding.state, clean(finding.message), clean(finding.advice)))

    @contextmanager
    def guarding(self, check: str, advice: str, explain: Callable[[Exception], str] = str) -> Iterator[None]:
        """Make a failed finding of whatever is raised, so that the other checks go on."""
        try:
            yield
        except Exception as error:
            self.failed(check, explain(error) or type(error).__name__, advice)

    @property
    def any_failed(self) -> bool:
        """Whether something does not work."""
        return any(finding.state == "failed" for finding in self.found)
