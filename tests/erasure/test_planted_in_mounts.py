"""A text that came in through mounts is in no raw byte of the host and the deployment afterwards."""

from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest

from tests.erasure.hosts import FUSE, MIRROR, Planted
from tests.erasure.planting import new_marker, places_with
from tests.mount.fuse_mounts import missing_for_fuse
from tests.mount.hosts import Host, host_of
from tests.storage.outside import Outside
from tests.support.servers import Server

pytestmark = pytest.mark.any_backend


@pytest.fixture(params=[FUSE, MIRROR])
def mode(request: pytest.FixtureRequest) -> str:
    if request.param == FUSE and (reason := missing_for_fuse()):
        pytest.skip(f"FUSE: {reason}")
    return str(request.param)


@pytest.fixture
def host(own: Server) -> Iterator[Host]:
    with host_of(own) as host:
        yield host


@pytest.fixture
def planted(own: Server, sdk: anthropic.Anthropic, host: Host, mode: str) -> Planted:
    """The text, through the mount and by what programs do in it."""
    planted = Planted(own, sdk, host, new_marker(), mode)
    planted.plant()
    return planted


def forget(own: Server, marker: str, report: Path) -> None:
    done = own.cli("forget", "--where", "user=u_123", "--where", f"who={marker}", "--yes", "--report", str(report))
    assert places_with(own, marker) == [], done.stdout + done.stderr
    assert "Nothing is left of 1 store" in own.cli("forget", "verify", str(report), "--contains", marker).stdout


def test_a_mount_that_runs_lets_go_of_a_forgotten_person(
    own: Server, planted: Planted, view: Outside, tmp_path: Path
) -> None:
    view.wait_until_moved()
    before = planted.on_disk()
    assert any(found.startswith("state: ") for found in before), before
    assert places_with(own, planted.marker)
    forget(own, planted.marker, tmp_path / "erased.json")
    planted.wait_until_clean()
    planted.host.memstore("unmount", "--root", planted.host.root, "--force")
    assert planted.anywhere() == []


def test_an_unmounted_store_has_left_nothing_on_the_host(
    own: Server, planted: Planted, view: Outside, tmp_path: Path
) -> None:
    planted.host.memstore("unmount", "--root", planted.host.root)
    assert planted.anywhere() == []
    view.wait_until_moved()
    assert places_with(own, planted.marker)
    forget(own, planted.marker, tmp_path / "erased.json")
