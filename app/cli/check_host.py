"""The doctor's look at the host: Python and packages, FUSE, namespaces; and at the server, as a client sees it."""

import os
import platform
import re
import subprocess
import sys
import time
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError

from app import DISTRIBUTION, __version__
from app.cli import mount_settings
from app.cli.check_storage import tell_skew
from app.cli.findings import Findings
from app.cli.kept import HINT, count_of, texts_in
from app.client.credentials import authorization
from app.mount.daemon import places
from app.mount.sync.errors import MountError

_DEVICE = Path("/dev/fuse")
_CONNECTIONS = Path("/sys/fs/fuse/connections")
_PROBE = (
    "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True); "
    "sys.exit(ctypes.get_errno() if libc.unshare(int(sys.argv[1])) else 0)"
)
_MOUNT_NAMESPACE, _USER_NAMESPACE = 0x20000, 0x10000000
_MIRROR = "mount with '--mode mirror', which needs none of it, or"
_SECONDS = 5.0

_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?([^;]*)(;.*)?")
_BOUND = re.compile(r"(==|>=|<=|!=|>|<)\s*([0-9][0-9.]*)")


def check_python(findings: Findings) -> None:
    """Python itself, and whether each package we need is there in a version that fits."""
    findings.ok("python", f"memstore {__version__} on Python {platform.python_version()}, {platform.platform()}")
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        findings.warning(
            "packages", f"{DISTRIBUTION} is not installed as a package", "install it: docs/how-to/deploy.md says how"
        )
        return
    wrong = []
    count = 0
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        assert match is not None
        name, bounds, condition = match.groups()
        if condition and "extra" in condition:
            continue
        count += 1
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if not all(_fits(found, operator, bound) for operator, bound in _BOUND.findall(bounds)):
            wrong.append(f"{name} is {found}, wanted is {bounds.strip()}")
    if wrong:
        findings.failed("packages", "; ".join(wrong), "install it again, in an environment of its own")
    else:
        findings.ok("packages", f"all {count} are there, in versions that fit")


def _fits(version: str, operator: str, bound: str) -> bool:
    """Whether a version is within one bound. Only the numbers count; `1.2` is `1.2.0`."""
    left, right = _numbers(version), _numbers(bound)
    length = max(len(left), len(right))
    left, right = left + [0] * (length - len(left)), right + [0] * (length - len(right))
    return {
        "==": left == right, "!=": left != right, ">=": left >= right, "<=": left <= right, ">": left > right,
        "<": left < right,
    }[operator]  # fmt: skip


def _numbers(version: str) -> list[int]:
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return [int(part) for part in match.group().split(".")] if match else []


def check_fuse(findings: Findings, device: Path = _DEVICE, connections: Path = _CONNECTIONS) -> None:
    """What `memstore mount`, `run` and `attach` need. Without it a mount can still be a mirror."""
    advice = f"{_MIRROR} give the container the device: docker run --device /dev/fuse; on a host: modprobe fuse"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        findings.warning("fuse", f"{device} is not there", advice)
        return
    except OSError as error:
        findings.warning("fuse", f"{device} can't be opened: {error.strerror}", f"{_MIRROR} let this user open it")
        return
    findings.ok("fuse", f"{device} can be opened")
    if connections.is_dir():
        findings.ok("fusectl", f"{connections} is there")
    else:
        findings.warning(
            "fusectl", f"{connections} is not there",
            "a hanging mount can then be ended by root only: mount -t fusectl none /sys/fs/fuse/connections",
        )  # fmt: skip


def check_namespaces(findings: Findings) -> None:
    """What `memstore run` needs: a user and a mount namespace for the command, tried in a process of its own."""
    privileged = os.geteuid() == 0
    flags = _MOUNT_NAMESPACE if privileged else _MOUNT_NAMESPACE | _USER_NAMESPACE
    what = "mount namespaces, as root" if privileged else "user namespaces"
    number = _unshare(flags) or (_unshare(_USER_NAMESPACE) if privileged else 0)
    if number == 0:
        findings.ok("namespaces", f"'memstore run' can make {what}")
        return
    findings.warning(
        "namespaces",
        f"'memstore run' can't make {what}: {os.strerror(number)}",
        "allow them: sysctl user.max_user_namespaces=15000, and where the system has them "
        "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; in a container "
        "--cap-add SYS_ADMIN or another seccomp profile. 'memstore mount' works without",
    )


def _unshare(flags: int) -> int:
    """The number of the error, 0 if it can be done."""
    command = [sys.executable, "-I", "-S", "-c", _PROBE, str(flags)]
    return subprocess.run(command, check=False, timeout=30).returncode  # noqa: S603 - our own interpreter and code


def check_kept(findings: Findings) -> None:
    """Whether a mount of this host could not save something, which waits for a person."""
    try:
        state = places.find(mount_settings.variables()).state
    except MountError as error:
        findings.failed("kept texts", str(error), "set it right, or unset it")
        return
    found = texts_in(state)
    if not found:
        findings.ok("kept texts", f"a mount has kept nothing back in {state}")
        return
    stores = len({store_id for store_id, _ in found})
    oldest = min(kept.at for _, kept in found)[:10]
    findings.warning(
        "kept texts",
        f"{count_of(len(found))} in {state / 'kept'}, of {stores} store{'' if stores == 1 else 's'}, since {oldest}",
        f"{HINT}, 'memstore kept discard STORE/ID' removes it",
    )


def check_server(findings: Findings) -> None:
    """The server at MEMSTORE_BASE_URL, if it is set: does it answer, what is it, does it know our secret."""
    try:
        variables = mount_settings.variables()
    except MountError as error:
        findings.failed("server", str(error), "make the file readable, or remove it")
        return
    url = variables.get(mount_settings.BASE_URL, "").strip().rstrip("/")
    if not url:
        findings.skipped("server", f"not looked at, since {mount_settings.BASE_URL} is not set")
        return
    advice = f"see that it runs, and that {mount_settings.BASE_URL} names it, such as http://127.0.0.1:8080"
    if not url.startswith(("http://", "https://")):
        findings.failed("server", f"{mount_settings.BASE_URL} is no http or https URL", advice)
        return
    secret = next((value for name in mount_settings.SECRETS if (value := variables.get(name, "").strip())), "")
    pool = urllib3.PoolManager(timeout=_SECONDS, retries=False)
    try:
        _ask(findings, pool, url, secret, advice)
    except (HTTPError, ValueError) as error:
        findings.failed("server", f"{url} does not answer: {error}", advice)
    finally:
        pool.clear()


def _ask(findings: Findings, pool: urllib3.PoolManager, url: str, secret: str, advice: str) -> None:
    before = time.time()
    ready = pool.request("GET", f"{url}/readyz")
    now = (before + time.time()) / 2
    if ready.status == 200:
        findings.ok("server", f"{url} is ready ({(time.time() - before) * 1_000:.1f} ms)")
    elif ready.status == 503:
        state = ready.json()
        parts = "; ".join(f"{name}: {state[name]}" for name in ("database", "blob_store") if state[name] != "ok")
        findings.failed("server", f"{url} runs, but can't work: {parts}", "run 'memstore doctor' on the server's host")
    else:
        findings.warning("server", f"{url} answers {ready.status} to /readyz: it is no memstore", advice)
        return
    if "date" in ready.headers:
        tell_skew(findings, "server's clock", parsedate_to_datetime(ready.headers["date"]).timestamp() - now)
    theirs = pool.request("GET", f"{url}/openapi.json").json()["info"]["version"]
    if theirs == __version__:
        findings.ok("server's version", f"{theirs}, as here")
    else:
        findings.warning("server's version", f"{theirs}; here it is {__version__}", "install the same version on both")
    if secret:
        # A session's token may not list stores, and is told so; one that is unknown is told something else.
        answer = pool.request(
            "GET",
            f"{url}/v1/memory_stores?limit=1",
            headers={**authorization(secret), "anthropic-version": "2023-06-01",
                     "anthropic-beta": "agent-memory-2026-07-22"},
        )  # fmt: skip
        if answer.status == 401:
            findings.failed("server's answer", "it does not know our key or token", "make one: 'memstore keys create'")
        else:
            findings.ok("server's answer", "it knows our key or token")
