"""S3 servers for tests: moto's (always there) and Ceph's gateway (where its packages are installed)."""

import contextlib
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.support.processes import Daemon, answers, free_port

CEPH_SCRIPT = Path(__file__).parents[2] / "scripts" / "ceph-rgw.sh"
CEPH_PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
CEPH_START_SECONDS = 240.0


@dataclass(frozen=True)
class S3Endpoint:
    """Where an S3 server is and what opens it."""

    url: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def environment(self) -> dict[str, str]:
        """The variables that point Memstore (and any AWS client, for the keys) at this server."""
        return {
            "MEMSTORE_S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
        }

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A boto3 S3 client, to look behind the service's back."""
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
        )
        try:
            yield client
        finally:
            client.close()

    def create_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"memstore-test-{uuid.uuid4().hex[:12]}"
        with self.client() as client:
            client.create_bucket(Bucket=name)
        return name


@contextlib.contextmanager
def moto(directory: Path) -> Iterator[S3Endpoint]:
    """moto's server as its own process. It keeps everything in memory: a killed one has forgotten all."""
    port = free_port()
    daemon = Daemon(
        "moto",
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        log=directory / "moto.log",
        ready=lambda: answers(port, "/moto-api/"),
    )
    daemon.start()
    try:
        yield S3Endpoint(f"http://127.0.0.1:{port}", "testing", "testing")
    finally:
        daemon.kill()


def missing_for_ceph() -> str | None:
    """Why Ceph's gateway can't run here, in words; None if it can."""
    missing = [program for program in CEPH_PROGRAMS if shutil.which(program) is None]
    if not missing:
        return None
    return (
        f"Ceph's gateway is not installed (missing: {', '.join(missing)}); "
        "on Debian: apt-get install --no-install-recommends ceph-mon ceph-mgr ceph-osd radosgw"
    )


@contextlib.contextmanager
def ceph(directory: Path) -> Iterator[S3Endpoint]:
    """A one-node Ceph with its S3 gateway below `directory`; it takes about 16 s to start."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    script = Daemon(
        "Ceph",
        [CEPH_SCRIPT, "--foreground", directory / "ceph", str(port)],
        log=directory / "ceph.log",
        ready=lambda: url in script.log_tail(),
    )
    script.start(within=CEPH_START_SECONDS)
    try:
        yield S3Endpoint(url, "ACCESSKEYID0", "SECRETACCESSKEY0")
    finally:
        script.stop()
