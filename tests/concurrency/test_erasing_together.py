from collections.abc import AsyncIterator
from pathlib import Path
import pytest
from app.storage import migrations
from tests.storage.interrupted import InterruptedBlobs
from tests.storage.parts import Parts, opened, options, Written
from tests.support.backends import Backend

pytestmark = pytest.mark.anyio

@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"

@pytest.fixture
async def parts(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Parts]:
    environment = backend.environment(tmp_path)
    migrations.upgrade(options(environment).database_url)
    for name, value in environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    async with opened(environment) as parts:
        yield parts


async def test_a_removal_that_comes_late_takes_no_content_that_came_back(parts: Parts) -> None:
    past = await parts.create_past("secret")
    await parts.move_all()
    await parts.redact(past)
    back: list[Written] = []

    async def meanwhile() -> None:
        again = await parts.create_past("secret", path="/again.md", store_id=past.store_id)
        await parts.redact(again)
        await parts.collector().collect()
        back.append(await parts.create(past.store_id, "secret", "/kept.md"))
        await parts.move_all()

    slow = InterruptedBlobs(parts.blobs)
    slow.before_remove = meanwhile
    await parts.collector(slow).collect()
    assert await parts.read(back[0]) == "secret"
    await parts.move_all()
    assert await parts.check() == []
