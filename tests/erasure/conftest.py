"""Fixtures of the erasure's tests: a server of their own, since an erasure looks at the whole deployment."""

from collections.abc import Iterator
from pathlib import Path

import anthropic
import pytest

from app.contract.actors import USER, Actor
from app.erasure.service import Erasures
from tests.storage.conftest import anyio_backend as anyio_backend
from tests.storage.conftest import environment as environment
from tests.storage.conftest import migrated as migrated
from tests.storage.conftest import parts as parts
from tests.storage.outside import Outside, outside
from tests.storage.parts import Parts
from tests.support.backends import Backend
from tests.support.servers import Server, serve

OPERATOR = Actor(USER, "cli:somebody")


@pytest.fixture
def own(backend: Backend, tmp_path: Path) -> Iterator[Server]:
    """A server on an empty database, data directory and bucket."""
    with serve(backend.environment(tmp_path)) as server:
        yield server


@pytest.fixture
def sdk(own: Server) -> Iterator[anthropic.Anthropic]:
    """The official SDK, pointed at it."""
    with own.client(max_retries=0) as client:
        yield client


@pytest.fixture
def view(own: Server) -> Iterator[Outside]:
    """Its database and blob store from outside."""
    with outside(own.environment) as view:
        yield view


@pytest.fixture
def erasures(parts: Parts) -> Erasures:
    """The service, for an operator."""
    return Erasures(parts.storage, OPERATOR)
