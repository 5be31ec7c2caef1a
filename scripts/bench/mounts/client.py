"""What client.c does, for machines without a C compiler. Slower itself, and equally so for every side."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_LATENCIES = 200_000
_FILE_BYTES = 4096
_CHANGE_SECONDS = 60
_RUNS = 3

_now = time.monotonic_ns


class _Record:
    """What is printed at the end."""

    def __init__(self) -> None:
        self.count = 0
        self.timed = 0
        self.latencies: list[int] = []

    def add(self, took: int) -> None:
        self.count += 1
        self.timed += took
        if len(self.latencies) < _LATENCIES:
            self.latencies.append(took)


def _read_one(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    if len(os.read(fd, 2 * _FILE_BYTES)) != _FILE_BYTES:
        raise OSError(errno.EIO, "not the whole file", path)
    os.close(fd)


def _passes(record: _Record, paths: Sequence[str], seconds: float, one: Callable[[str], object]) -> None:
    for path in paths:
        one(path)
    began = ended = _now()
    until = began + int(seconds * 1e9)
    while ended < until:
        for path in paths:
            one(path)
        record.count += len(paths)
        ended = _now()
    record.timed = ended - began


def _lookup(record: _Record, directory: str, seconds: float, pause: float) -> None:
    until = _now() + int(seconds * 1e9)
    number = 0
    while _now() < until:
        path = f"{directory}/absent-{os.getpid()}-{number}"
        number += 1
        began = _now()
        try:
            os.stat(path)
        except FileNotFoundError:
            record.add(_now() - began)
        else:
            raise FileExistsError(errno.EEXIST, "it should not be there", path)
        time.sleep(pause)


def _create(record: _Record, directory: str, prefix: str, suffix: str, burst: int, seconds: float, sync: bool) -> None:
    until = _now() + int(seconds * 1e9)
    made = removed = 0
    while _now() < until:
        while made - removed < burst and _now() < until:
            path = f"{directory}/{prefix}{made:06d}{suffix}"
            text = path.encode().ljust(_FILE_BYTES, b"x")
            made += 1
            began = _now()
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            os.write(fd, text)
            if sync:
                os.fsync(fd)
            os.close(fd)
            record.add(_now() - began)
        while removed < made:
            os.unlink(f"{directory}/{prefix}{removed:06d}{suffix}")
            removed += 1


def _command(record: _Record, seconds: float, drop: bool, program: Sequence[str]) -> None:
    until = _now() + int(seconds * 1e9)
    while True:
        if drop:
            Path("/proc/sys/vm/drop_caches").write_text("2")
        began = _now()
        status = subprocess.run(program, stdout=subprocess.DEVNULL, check=False).returncode
        record.add(_now() - began)
        if status not in (0, 1):
            raise OSError(errno.EIO, f"ended with status {status}", program[0])
        if _now() >= until and record.count >= _RUNS:
            return


def _change(record: _Record, source: str, target: str, prefix: str, samples: int, pause: float) -> None:
    for number in range(samples):
        text = f"{prefix} {number:06d}\n".encode()
        began = _now()
        fd = os.open(source, os.O_WRONLY | os.O_TRUNC)
        os.write(fd, text)
        os.close(fd)
        closed = _now()
        while Path(target).read_bytes() != text:
            if _now() > began + _CHANGE_SECONDS * 10**9:
                raise TimeoutError(errno.ETIMEDOUT, "the change did not come", target)
            time.sleep(200e-6)
        seen = _now()
        record.latencies += [began, closed, seen]
        record.count += 1
        record.timed += seen - began
        time.sleep(pause)


def main(mode: str, *arguments: str) -> None:
    """Run one mode; client.c says which there are, and what is printed."""
    record = _Record()
    match mode, arguments:
        case "stat" | "read", (directory, listed, seconds):
            paths = Path(listed).read_text().splitlines()
            os.chdir(directory)  # so that how deep it lies costs no side anything
            _passes(record, paths, float(seconds), os.stat if mode == "stat" else _read_one)
        case "lookup", (directory, seconds, pause):
            _lookup(record, directory, float(seconds), int(pause) / 1e6)
        case "create", (directory, prefix, suffix, burst, seconds, sync):
            _create(record, directory, prefix, suffix, int(burst), float(seconds), sync == "1")
        case "command", (seconds, drop, *program):
            _command(record, float(seconds), drop == "1", program)
        case "change", (source, target, prefix, samples, pause):
            _change(record, source, target, prefix, int(samples), int(pause) / 1e6)
        case _:
            sys.exit("the head of client.c says how it is used")
    print(json.dumps({"count": record.count, "seconds": record.timed / 1e9, "nanoseconds": record.latencies}))


if __name__ == "__main__":
    main(*sys.argv[1:])
