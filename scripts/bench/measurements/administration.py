"""What administrators wait for: a store out and in, a store forgotten, a state of the past."""

import contextlib
import http.client
import itertools
import json
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.bench import dataset
from scripts.bench.bench import Bench
from scripts.bench.contest import Side
from scripts.bench.dataset import Shape
from scripts.bench.errors import MeasurementError
from scripts.bench.load import Figure
from scripts.bench.processes import run
from scripts.bench.product import HEADERS, Installation, Product, install, serve
from scripts.bench.report import Goal, Met, Row, row_of_rates, row_of_times

_MEMSTORE = str(Path(sys.executable).with_name("memstore"))
_INFORMATION = Goal()
_MOVED = Shape(stores=1, memories_per_store=2_000, content_bytes=16_384, directories=20)
_FORGOTTEN = Shape(stores=1, memories_per_store=2_000, content_bytes=1_024, directories=20)
_PAST = Shape(stores=1, memories_per_store=2_000, versions_per_memory=10, readable_per_store=1, directories=20)
_MEGABYTE = 1_000_000
_CLIENTS = 8
_PAGE = 100
_SECONDS = 300.0
_MANY_STORES, _FEW_STORES = 10_000, 1_000
_A_MILLION_SECONDS = 60.0


def _megabytes(shape: Shape) -> float:
    return shape.memories_per_store * shape.content_bytes / _MEGABYTE


def _timed_rate(shape: Shape, began: float) -> Figure:
    """MB of content per second."""
    return Figure(_megabytes(shape) / (time.perf_counter() - began))


def _row_of_megabytes(what: str, product: Side, bound: Side, bench: Bench) -> Row:
    outcome = bench.compete(product, bound)
    row = row_of_rates(what, outcome, _INFORMATION)
    return Row(
        row.what, f"{outcome.product.value:,.0f} MB/s", f"{outcome.bound.value:,.0f} MB/s", row.ratio, "", row.met
    )


def _write_files(directory: Path, shape: Shape) -> Path:
    for memory in range(shape.memories_per_store):
        file = directory / dataset.path(shape, memory).lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(dataset.content(shape, memory, 0))
    return directory


def _tar_of(directory: Path) -> bytes:
    done = subprocess.run(["tar", "-cf", "-", "-C", directory, "."], capture_output=True, timeout=_SECONDS, check=True)
    return done.stdout


class _Importer:
    """Sends one archive again and again, as a new store each time."""

    def __init__(self, product: Product, archive: bytes) -> None:
        mark = secrets.token_hex(12)
        head = f'--{mark}\r\ncontent-disposition: form-data; name="file"; filename="notes.tar"\r\n\r\n'
        self._body = head.encode() + archive + f"\r\n--{mark}--\r\n".encode()
        self._headers = {
            **HEADERS,
            "x-api-key": product.installation.api_key,
            "content-type": f"multipart/form-data; boundary={mark}",
        }
        self._product = product
        self.made: list[str] = []

    def send(self) -> str:
        """The new store's ID."""
        connection = http.client.HTTPConnection("127.0.0.1", self._product.port, timeout=_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/memory_stores/import", self._body, self._headers)
            response = connection.getresponse()
            answer = response.read()
        if response.status != http.client.OK:
            raise MeasurementError(f"the import answered {response.status}: {answer[:300]!r}")
        store: str = json.loads(answer)["memory_store_id"]
        self.made.append(store)
        return store

    def remove_all(self) -> None:
        """Delete what was made, and wait until its contents are moved or gone."""
        for store in self.made:
            _delete(self._product, store)
        self.made.clear()
        self._product.drain()


def _delete(product: Product, store: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", product.port, timeout=_SECONDS)
    with contextlib.closing(connection):
        headers = {**HEADERS, "x-api-key": product.installation.api_key}
        connection.request("DELETE", f"/v1/memory_stores/{store}", headers=headers)
        response = connection.getresponse()
        response.read()
    if response.status != http.client.OK:
        raise MeasurementError(f"the deletion of a store answered {response.status}")


def _wait_until_blobs_are_gone(product: Product, store: str) -> None:
    give_up = time.monotonic() + _SECONDS
    directory = product.installation.blob_directory / store
    while directory.exists() and any(directory.iterdir()):
        if time.monotonic() > give_up:
            raise MeasurementError("a deleted store's blobs are still there")
        time.sleep(0.005)


def moving(bench: Bench) -> list[Row]:
    """Export and import of a store over HTTP, beside tar reading and writing the same files."""
    installation = install(bench.new_path("moving"), _MOVED, database=None)
    files = _write_files(bench.new_path("files"), _MOVED)
    archive = _tar_of(files)
    unpacked: Iterator[Path] = (bench.new_path("unpacked") for _ in itertools.count())
    with serve(installation, cpus=bench.cores.server) as product, product.caller() as caller:

        def export() -> Figure:
            began = time.perf_counter()
            size = len(caller.get(f"{dataset.store_path(0)}/export?format=tar"))
            if size < _megabytes(_MOVED) * _MEGABYTE:
                raise MeasurementError(f"the export has {size} bytes")
            return _timed_rate(_MOVED, began)

        def tar() -> Figure:
            began = time.perf_counter()
            _tar_of(files)
            return _timed_rate(_MOVED, began)

        importer = _Importer(product, archive)

        def import_() -> Figure:
            began = time.perf_counter()
            importer.send()
            return _timed_rate(_MOVED, began)

        def untar() -> Figure:
            directory = next(unpacked)
            directory.mkdir()
            began = time.perf_counter()
            subprocess.run(["tar", "-xf", "-", "-C", directory], input=archive, timeout=_SECONDS, check=True)
            subprocess.run(["sync", "--file-system", directory], timeout=_SECONDS, check=True)
            figure = _timed_rate(_MOVED, began)
            shutil.rmtree(directory)
            return figure

        size = f"2,000 memories of 16 KB ({_megabytes(_MOVED):.0f} MB), SQLite + disk"
        return [
            _row_of_megabytes(f"export over HTTP, {size}; tar of the same files", Side(export), Side(tar), bench),
            _row_of_megabytes(
                f"import over HTTP, durable, {size}; tar -x of the same files, and one sync",
                Side(import_, settle=importer.remove_all),
                Side(untar),
                bench,
            ),
        ]


def forgetting(bench: Bench) -> list[Row]:
    """`memstore forget` of a store beside a running server, and the plain deletion of such a store."""
    installation = install(bench.new_path("forget"), Shape(1, 1), database=None)
    archive = _tar_of(_write_files(bench.new_path("files"), _FORGOTTEN))
    with serve(installation, cpus=bench.cores.server) as product:
        importer = _Importer(product, archive)

        def made() -> str:
            store = importer.send()
            importer.made.clear()
            product.drain()
            return store

        def forget() -> Figure:
            store = made()
            began = time.perf_counter()
            run(
                [_MEMSTORE, "forget", "--store", store, "--yes"],
                directory=installation.directory,
                environment=installation.environment,
                seconds=_SECONDS,
            )
            return Figure(time.perf_counter() - began)

        def delete() -> Figure:
            store = made()
            began = time.perf_counter()
            _delete(product, store)
            _wait_until_blobs_are_gone(product, store)
            return Figure(time.perf_counter() - began)

        what = "forget a store of 2,000 memories, with the command's start and the signed report, SQLite + disk; "
        return [
            row_of_times(
                f"{what}a plain deletion of such a store", bench.compete(Side(forget), Side(delete)), _INFORMATION
            )
        ]


def past(bench: Bench) -> list[Row]:
    """Pages of a store as it was, and as it is."""
    installation = install(bench.new_path("past"), _PAST, database=bench.new_database("past"))
    middle = _PAST.memories_per_store * _PAST.versions_per_memory // 2
    prefix = f"limit={_PAGE}&path_prefix=/area-0001/"
    with bench.postgres_on(bench.cores.rest), serve(installation, cpus=bench.cores.server) as product:
        then = bench.write_lines("then.paths", [f"{dataset.store_path(0)}/as_of/memories?seq={middle}&{prefix}"])
        now = bench.write_lines("now.paths", [f"{dataset.store_path(0)}/memories?{prefix}"])
        outcome = bench.compete(
            Side(lambda: bench.wrk(product.target(then), cpus=bench.cores.rest, clients=_CLIENTS)),
            Side(lambda: bench.wrk(product.target(now), cpus=bench.cores.rest, clients=_CLIENTS)),
        )
    what = (
        "list 100 basic as of half-way, a store of 2,000 memories of 10 versions, 8 clients, PostgreSQL; as it is now"
    )
    return [row_of_rates(what, outcome, _INFORMATION)]


def sweeping(bench: Bench) -> list[Row]:
    """The hourly pass of an idle deployment: what many stores cost more than few."""
    settings = {"MEMSTORE_ORPHAN_GRACE_SECONDS": "0"}
    many, few = (
        install(bench.new_path("sweep"), Shape(stores, 1, content_bytes=200), database=None, settings=settings)
        for stores in (_MANY_STORES, _FEW_STORES)
    )

    def processor_seconds(installation: Installation) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(
            [_MEMSTORE, "sweep"],
            directory=installation.directory,
            environment=installation.environment,
            seconds=_SECONDS,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    rounds = [(processor_seconds(many), processor_seconds(few)) for _ in range(bench.options.rounds)]
    with_many, with_few = (statistics.median(each) for each in zip(*rounds, strict=True))
    of_one = (with_many - with_few) / (_MANY_STORES - _FEW_STORES)
    of_a_million = of_one * 1_000_000
    what = (
        f"`memstore sweep`, nothing to do, {_MANY_STORES:,} stores of one memory, SQLite + disk, processor time; "
        f"{_FEW_STORES:,} such stores"
    )
    ratio = f"{of_one * 1e6:.0f} µs a store"
    met = Met.YES if of_a_million < _A_MILLION_SECONDS else Met.NO
    target = f"a million in < {_A_MILLION_SECONDS:.0f} s"
    return [Row(what, f"{with_many:.2f} s", f"{with_few:.2f} s", ratio, target, met)]
