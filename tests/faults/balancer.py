"""nginx in front of two replicas, as people run it."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.docs.blocks import blocks
from tests.support.processes import Daemon, answers, free_port

PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
MISSING = "nginx is not installed (Debian: apt-get install nginx-light)"

_AROUND = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
access_log off;
client_body_temp_path {directory}/body;
proxy_temp_path {directory}/proxy;
fastcgi_temp_path {directory}/fastcgi;
uwsgi_temp_path {directory}/uwsgi;
scgi_temp_path {directory}/scgi;
{documented}
}}
"""
_DOCUMENTED_PORT, _DOCUMENTED_REPLICAS = 8080, (8081, 8082)


def _documented(port: int, replicas: Sequence[int]) -> str:
    """The configuration of docs/how-to/replicas.md on these ports."""
    (block,) = [block for block in blocks("docs/how-to/replicas.md") if block.language == "nginx"]
    text = block.text
    for written, ours in zip((_DOCUMENTED_PORT, *_DOCUMENTED_REPLICAS), (port, *replicas), strict=True):
        assert f"127.0.0.1:{written}" in text
        text = text.replace(f"127.0.0.1:{written}", f"127.0.0.1:{ours}")
    return text


@contextlib.contextmanager
def balancer(replicas: Sequence[int], directory: Path) -> Iterator[str]:
    """The URL of an nginx that shares requests out to the replicas on these ports of the loopback address."""
    port = free_port()
    with nginx(_documented(port, replicas), directory, ready=lambda: answers(port, "/healthz")):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def nginx(servers: str, directory: Path, *, ready: Callable[[], bool]) -> Iterator[None]:
    """An nginx with these `server` and `upstream` blocks; its files are in `directory`."""
    assert PROGRAM is not None
    user = "user root;" if os.geteuid() == 0 else ""  # it must reach the test's own directory
    configuration = directory / "nginx.conf"
    configuration.write_text(_AROUND.format(directory=directory, user=user, documented=servers))
    daemon = Daemon("nginx", [PROGRAM, "-p", directory, "-c", configuration], log=directory / "nginx.log", ready=ready)
    daemon.start()
    try:
        yield
    finally:
        daemon.stop()
