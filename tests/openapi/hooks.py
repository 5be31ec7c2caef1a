"""What schemathesis can't know from the document: things that exist, and refusals that no schema can foresee.

The command of schemathesis loads this file by its path; the test that runs it sets the variables.
"""

import atexit
import json
import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import httpx2
import schemathesis
from schemathesis import Case, HookContext
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transport import Response
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import RejectedPositiveData

from tests.support.servers import API_VERSION

URL_VARIABLE = "OPENAPI_TEST_URL"
KEY_VARIABLE = "OPENAPI_TEST_KEY"
STATUSES_VARIABLE = "OPENAPI_TEST_STATUSES"
"""The file that gets, as JSON, how often each operation answered with each status."""

UNFORESEEABLE = re.compile(
    r"memory store '\w+' is archived"
    r"|memory version '\w+' holds the current content"
    r"|metadata: has \d+ pairs"  # after the merge
    r"|page: is not a cursor of this listing"
    r"|path(_prefix)?: (contains U\+[0-9A-F]+, a format character|must be in Unicode Normalization Form C"
    r"|is [\d,]+ bytes of UTF-8)"
    r"|content: is [\d,]+ bytes of UTF-8"
)
"""Refusals of requests that fit their schema: state, and rules about characters that JSON Schema can't express."""

_http = httpx2.Client(
    base_url=os.environ[URL_VARIABLE],
    headers={"x-api-key": os.environ[KEY_VARIABLE], "anthropic-version": API_VERSION},
    trust_env=False,
)

_statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)


@atexit.register
def _tell() -> None:
    Path(os.environ[STATUSES_VARIABLE]).write_text(json.dumps(_statuses))


def _made(path: str, body: dict[str, str]) -> dict[str, Any]:
    answer: dict[str, Any] = _http.post(f"/v1/memory_stores{path}", json=body).raise_for_status().json()
    return answer


def _existing(names: set[str]) -> dict[str, str]:
    """IDs of a new store, a memory in it, and a version of that memory which is not its head."""
    store = _made("", {"name": "made for one request"})["id"]
    if names == {"memory_store_id"}:
        return {"memory_store_id": store}
    memory = _made(f"/{store}/memories", {"path": "/a/b.md", "content": "first"})
    _made(f"/{store}/memories/{memory['id']}", {"content": "second"})
    found = {
        "memory_store_id": store,
        "memory_id": memory["id"],
        "memory_version_id": memory["memory_version_id"],
    }
    return {name: found[name] for name in names}


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Let requests meet things that exist, so that they get past the 404."""
    assert case.meta is not None
    if case.meta.generation.mode.is_positive and "page" in case.query:
        del case.query["page"]  # no cursor can be invented
    if case.meta.phase.name == TestPhase.STATEFUL or not case.path_parameters:
        return  # the earlier requests made what this one names
    component = case.meta.components.get(ParameterLocation.PATH)
    if component is None or component.mode.is_positive:
        case.path_parameters.update(_existing(set(case.path_parameters)))


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Count it."""
    _statuses[case.operation.label][response.status_code] += 1


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Whether it is one."""
    if isinstance(failure, AcceptedNegativeData):
        return response.status_code != 413  # a refusal that schemathesis does not know
    if isinstance(failure, RejectedPositiveData) and response.status_code == 400:
        return not UNFORESEEABLE.match(response.json()["error"]["message"])
    return True
