"""What the project is called on a package index: there `memstore` is somebody else's."""

import re
import subprocess
import tomllib
from importlib import metadata

import app
from tests.docs.blocks import PROJECT

INSTALLS = re.compile(
    r"""(?:pipx?|uvx?|poetry|pdm)\s+(?:pip\s+)?(?:install|add|run|tool\s+install|download|wheel)\s  # any installer
        [^\n;|&]*?(?<![\w./-])memstore(?![\w./-])""",
    re.VERBOSE,
)
"""A command that would fetch the stranger's package. The command `memstore` itself is ours."""


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=False)
    if listed.returncode == 0:
        return [name for name in listed.stdout.decode().split("\0") if name]
    return [
        str(file.relative_to(PROJECT)) for part in ("app", "docs", "scripts") for file in (PROJECT / part).rglob("*")
    ]


def test_nothing_tells_anybody_to_install_a_package_of_somebody_else() -> None:
    found = []
    for name in tracked():
        file = PROJECT / name
        # The changelog tells what was; this file has the wrong words to look for.
        if name in ("CHANGELOG.md", "tests/docs/test_names.py") or not file.is_file():
            continue
        text = file.read_bytes().decode("utf-8", "replace")
        found += [f"{name}: {match[0]}" for match in INSTALLS.finditer(text)]
        if name.endswith((".py", ".toml", ".txt", ".md")):
            found += [f"{name}: {match[0]}" for match in re.finditer(r"(?<![\w./-])memstore\[\w+\]", text)]
    assert found == []


def test_the_wrong_words_would_be_found() -> None:
    wrong = ("pip install memstore", "pip install -U 'memstore[otel]'", "uv tool install memstore", "pipx run memstore")
    assert all(INSTALLS.search(words) for words in wrong)
    right = (
        "pip install 'memstore-server[otel]'",
        "pip install memstore-server",
        "pip install dist/memstore_server.whl",
    )
    assert not any(INSTALLS.search(words) for words in right)


def test_the_distribution_has_a_name_of_its_own_and_the_command_keeps_its() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["name"] == app.DISTRIBUTION == "memstore-server"
    assert project["scripts"] == {"memstore": "app.cli.main:main"}
    assert metadata.version(app.DISTRIBUTION) == app.__version__
