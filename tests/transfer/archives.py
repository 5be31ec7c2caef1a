"""Archives as somebody might send them: made by hand, good and evil."""

import io
import tarfile
import zipfile
from collections.abc import Mapping

from app.transfer.archives.bounds import Bounds
from app.transfer.archives.readers import archive_entries
from app.transfer.archives.spool import Spool
from app.transfer.plan import Plan
from app.transfer.sources import plan_of


def tar_of(files: Mapping[str, bytes], mode: str = "w", **info: object) -> bytes:
    """A tar with these files, each header changed by `info`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in info.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return buffer.getvalue()


def zip_of(files: Mapping[str, bytes], attributes: int = 0) -> bytes:
    """A zip with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = attributes << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def plan(data: bytes, bounds: Bounds | None = None, name_encoding: str | None = None) -> Plan:
    """What an import of an archive would do."""
    with Spool() as spool:
        entries = archive_entries(io.BytesIO(data), bounds or Bounds(), name_encoding=name_encoding)
        return plan_of(entries, spool, default_name="test", bounds=bounds)


def paths(found: Plan) -> list[str]:
    """The paths of the memories to come."""
    return sorted(memory.path for memory in found.memories)
