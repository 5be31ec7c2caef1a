"""Building and running an image with podman, in a storage of its own, on a base made from Debian's packages."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

from tests.docs.blocks import PROJECT
from tests.support.processes import short_directory

WANTED = "MEMSTORE_TEST_IMAGE"
BUILD_SECONDS, RUN_SECONDS = 900, 120
_BASE, IMAGE = "localhost/base", "localhost/memstore"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000")
"""Podman's own defaults are higher than what root may ask for on some machines."""


class Podman:
    """One storage of images and containers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._storage = ("--root", str(directory / "images"), "--runroot", str(directory / "run"))

    def __call__(self, *arguments: str, seconds: float = RUN_SECONDS, check: bool = True) -> str:
        """What podman prints; an error carries what it said."""
        done = self._run((), arguments, seconds)
        assert done.returncode == 0 or not check, f"podman {' '.join(arguments)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def status(self, *arguments: str) -> int:
        """The exit status of a command of podman's."""
        return self._run((), arguments, RUN_SECONDS).returncode

    def start(self, name: str, *options: str, command: tuple[str, ...]) -> None:
        """Run a container in the background, as strictly as the documents say."""
        strict = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host")
        chosen = ("--runtime", self.runtime, "run", "--detach", f"--name={name}", *_LIMITS, *strict, *options)
        self(*chosen, IMAGE, *command)

    @cached_property
    def runtime(self) -> str:
        """The program that runs containers here; the test is skipped where none can."""
        said = ""
        for runtime in ("crun", "runc"):
            if shutil.which(runtime):
                command = ("run", "--rm", "--network=host", *_LIMITS, _BASE, "true")
                done = self._run(("--runtime", runtime), command, RUN_SECONDS)
                if done.returncode == 0:
                    return runtime
                said = done.stderr.strip()
        pytest.skip(f"podman can't run a container here: {said or 'neither crun nor runc is installed'}")

    def _run(
        self, options: tuple[str, ...], arguments: tuple[str, ...], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        command = ["podman", "--log-level=error", *self._storage, *options, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=PROJECT)

    def build(self) -> None:
        """The image of the project's Containerfile, installed through the package index that pip uses here."""
        base = self._directory / "base.tar"
        debian = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
        done = subprocess.run([*debian, "bookworm", base], capture_output=True, text=True, timeout=BUILD_SECONDS)
        if done.returncode != 0:
            pytest.skip(f"mmdebstrap can't make a base: {done.stderr.strip()[-500:]}")
        self("import", str(base), _BASE, seconds=BUILD_SECONDS)
        base.unlink()
        assert self.runtime  # Before the long part.
        self(
            "build", "--layers=false",
            "--isolation=chroot", "--network=host", "--format=docker", f"--build-arg=BASE={_BASE}",
            f"--volume={self._pip_settings()}:/etc/pip.conf:ro", f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro",
            f"--tag={IMAGE}", "--file=scripts/container/Containerfile", ".", seconds=BUILD_SECONDS,
        )  # fmt: skip

    def _pip_settings(self) -> Path:
        index = subprocess.run(
            ["pip", "config", "get", "global.index-url"], capture_output=True, text=True
        ).stdout.strip()
        index = os.environ.get("PIP_INDEX_URL", index)
        file = self._directory / "pip.conf"
        file.write_text(f"[global]\ncert = {_CERTIFICATES}\n" + (f"index-url = {index}\n" if index else ""))
        return file

    def remove(self) -> None:
        """Everything, running containers too."""
        self("rm", "--all", "--force", check=False)
        for mounted in sorted((self._directory / "images").glob("overlay"), reverse=True):
            subprocess.run(["umount", "--lazy", mounted], capture_output=True, check=False)


@contextlib.contextmanager
def podman() -> Iterator[Podman]:
    """A storage that is gone at the end; skips where something is missing, by its name."""
    if not os.environ.get(WANTED):
        pytest.skip(f"building and running the image takes about two minutes: {WANTED}=1 asks for it, as CI does")
    for program in ("podman", "mmdebstrap"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("images are built by root here")
    with short_directory() as directory:
        made = Podman(directory)
        try:
            yield made
        finally:
            made.remove()
