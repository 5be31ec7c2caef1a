"""Which names live in the mount only."""

import pytest

from app.mount.sync.scratch import is_scratch


@pytest.mark.parametrize(
    "name",
    [
        ".notes.md.swp", ".notes.md.swo", ".notes.md.swx", ".swp", "4913", "notes.md~", ".#notes.md", "#notes.md#",
        "sedAb3dE9", "tmpabc12345", "tmp_a1b2c3d", ".goutputstream-XY12Z3", ".nfs000000000123", "notes.md.tmp",
        "notes.tmp.1234", ".fs-00ff.tmp",
    ],
)  # fmt: skip
def test_an_editors_scratch_name_is_one(name: str) -> None:
    assert is_scratch(name)


@pytest.mark.parametrize(
    "name",
    [
        "notes.md", "4914", "swp", "notes.swp", "sedate", "sedAb3dE9.md", "tmp", "tmpl.md", "tmpabc123456",
        "#1", "# heading", "~", ".profile", "a#b#", "nfs", "temporary.md", "~notes",
    ],
)  # fmt: skip
def test_a_persons_name_is_none(name: str) -> None:
    assert not is_scratch(name)
