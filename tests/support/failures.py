"""A failure is printed when it happens: a run that is cut off has said by then what failed, and why."""

import os

import pytest


@pytest.hookimpl(trylast=True)  # after the letter that the test gets in the row of dots
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed and _terminal is not None:
        _terminal.line(f"\nFAILED {report.nodeid} - {reason(report)}", red=True)


_terminal: pytest.TerminalReporter | None = None


@pytest.hookimpl(trylast=True)  # the reporter is there by now, but in the processes that run tests for another one
def pytest_configure(config: pytest.Config) -> None:
    global _terminal
    _terminal = None if hasattr(config, "workerinput") else config.pluginmanager.get_plugin("terminalreporter")


def reason(report: pytest.TestReport) -> str:
    """Where it failed, and the first line of the error; of a process that ended, what is known of it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        return report.longreprtext.strip().rpartition("\n")[2]
    first_line = crash.message.partition("\n")[0]
    return f"{os.path.relpath(crash.path)}:{crash.lineno}: {first_line}"
