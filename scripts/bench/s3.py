"""An S3 server on loopback: Ceph's gateway where its packages are installed, moto's server elsewhere."""

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import boto3

from scripts.bench.bench import Bench
from scripts.bench.processes import free_port, run, running, wait_until_ready

_CEPH_SCRIPT = Path(__file__).parents[1] / "ceph-rgw.sh"
_ACCESS_KEY, _SECRET_KEY, _REGION = "ACCESSKEYID0", "SECRETACCESSKEY0", "us-east-1"
_BUCKET = "bench"


@contextmanager
def _ceph(bench: Bench) -> Iterator[str]:
    directory = bench.new_path("ceph")
    try:
        printed = run([str(_CEPH_SCRIPT), str(directory)], seconds=180)
        yield printed.strip().splitlines()[-1]
    finally:
        run([str(_CEPH_SCRIPT), "--stop", str(directory)], seconds=120)


@contextmanager
def _moto(bench: Bench) -> Iterator[str]:
    port = free_port()
    log = bench.new_path("moto.log")
    command = [str(Path(sys.executable).with_name("moto_server")), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, directory=bench.directory, log=log, environment={}, cpus=bench.cores.every) as process:
        wait_until_ready(port, "/moto-api/", process, log)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def server(bench: Bench) -> Iterator[tuple[str, Mapping[str, str]]]:
    """What it is, and the product's settings for a fresh bucket on it."""
    is_ceph = shutil.which("radosgw") is not None
    with (_ceph if is_ceph else _moto)(bench) as url:
        client = boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id=_ACCESS_KEY,
            aws_secret_access_key=_SECRET_KEY,
            region_name=_REGION,
        )
        client.create_bucket(Bucket=_BUCKET)
        yield (
            "Ceph's gateway" if is_ceph else "moto's server, itself slow",
            {
                "MEMSTORE_BLOB_URL": f"s3://{_BUCKET}/memstore",
                "MEMSTORE_S3_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": _ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": _SECRET_KEY,
                "AWS_REGION": _REGION,
            },
        )
