"""What schemathesis can't know from the document: things that exist, and refusals that no schema can foresee.

The command of schemathesis loads this file by its path; the test that runs it sets the variables.
"""

import atexit
import io
import json
import os
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, cast

import httpx2
import schemathesis
from schemathesis import Case, HookContext
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transport import Response
from schemathesis.generation.meta import TestPhase
from schemathesis.openapi.checks import (
    AllowHeaderMismatch,
    RejectedPositiveData,
    UnsupportedMethodResponse,
    UseAfterFree,
)

from app.contract import ids
from app.contract.limits import AGENT_ROSTER_MAX, SESSION_MAX_STORES
from tests.support.servers import API_VERSION

URL_VARIABLE = "OPENAPI_TEST_URL"
KEY_VARIABLE = "OPENAPI_TEST_KEY"
STATUSES_VARIABLE = "OPENAPI_TEST_STATUSES"
"""The file that gets, as JSON, how often each operation answered with each status."""

UNFORESEEABLE = re.compile(
    r"(\w+(\.\d+)?: )?((memory store|agent|environment|session) )?'\w+' is archived"
    r"|memory version '\w+' holds the current content"
    r"|memory version '\w+' is (redacted|of an? )"
    r"|metadata: has \d+ pairs"  # after the merge
    r"|at, seq: exactly one of the two"  # a query can't say so
    r"|at: \S+ is before the memory store was made"
    # 10**18 is one, as a float.
    r"|seq: (is \d+, but the newest change|Input should be less than or equal to 9{18})"
    r"|(into|name): (goes with|is not|must)"  # of an import
    r"|page: is not a cursor of this listing"
    r"|(after|seq): is \d+, but the newest change"
    r"|memory version '\w+' is (redacted|a deletion)"
    r"|the newest version with content of memory '\w+' has expired or is redacted"
    r"|the versions that were in force after change \d+ are redacted"
    r"|(path(_prefix)?|from|to): (contains U\+[0-9A-F]+, a format character|must be in Unicode Normalization Form C"
    r"|is [\d,]+ bytes of UTF-8)"
    r"|to: (.* is inside '|has \d+ segments)"  # compared with `from`; once the memories below it are there
    r"|content: is [\d,]+ bytes of UTF-8"
    r"|contains: is empty, which every memory contains"
    # What must fit something else in the same body, or what is there already.
    r"|resources\.\d+: memory store '\w+' is attached already"
    r"|config\.type: is \w+ and can't become"
    r"|config\.packages: limited networking"
    r"|(tools: the custom tool|mcp_servers: the name) .* is there more than once"
    r"|tools: mcp_server_name .* is none of mcp_servers"
    r"|mcp_servers: .* is used by no mcp_toolset"
    r"|tools: web_fetch: url_sources\.client_tool_results names .*, which is no such tool"
    r"|multiagent: names .* more than once"
    r"|multiagent: agent '\w+' has a multiagent itself"
    r"|multiagent\.\w+: with inline_agents disabled"
    # A JSON Schema inside the body: how large a number is, wherever it is.
    r"|(agent\.)?(agent_with_overrides\.)?tools\.\d+\.custom\.input_schema\..*: Value error, whole numbers must fit",
    re.DOTALL,
)
"""Refusals of requests that fit their schema: state, and rules about characters that JSON Schema can't express."""

_STORE = "/v1/memory_stores/{memory_store_id}"
_IMPORT = "/v1/memory_stores/import"
_ERASURES = "/v1/erasures"
_HISTORY = (f"{_STORE}/as_of/", f"{_STORE}/comparisons", f"{_STORE}/memories/{{memory_id}}/blame")

_http = httpx2.Client(
    base_url=os.environ[URL_VARIABLE],
    headers={"x-api-key": os.environ[KEY_VARIABLE], "anthropic-version": API_VERSION},
    trust_env=False,
)

_statuses: defaultdict[str, Counter[int]] = defaultdict(Counter)


@atexit.register
def _tell() -> None:
    Path(os.environ[STATUSES_VARIABLE]).write_text(json.dumps(_statuses))


_TAGS = {
    "memory_store_id": ids.STORE,
    "memory_id": ids.MEMORY,
    "memory_version_id": ids.VERSION,
    "agent_id": ids.AGENT,
    "environment_id": ids.ENVIRONMENT,
    "session_id": ids.SESSION,
    "resource_id": ids.STORE,
    "token_id": ids.SESSION_TOKEN,
    "erasure_id": ids.ERASURE,
}
_numbers = count()
_told: set[str] = set()
"""The IDs that answers gave."""


def _made(path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = _http.post(f"/v1/{path}", json=body).raise_for_status().json()
    return answer


def _new_store() -> str:
    store: str = _made("memory_stores", {"name": "made for one request"})["id"]
    return store


def _new_agent() -> str:
    agent: str = _made("agents", {"name": "made for one request", "model": "any"})["id"]
    return agent


def _new_environment() -> str:
    name = f"made for request {os.getpid()}-{next(_numbers)}"
    environment: str = _made("environments", {"name": name, "config": {"type": "self_hosted"}})["id"]
    return environment


# What requests name in their bodies, and no request changes.
_environment = cache(_new_environment)
_stores = cache(lambda: [_new_store() for _ in range(SESSION_MAX_STORES)])
_agents = cache(lambda: [_new_agent() for _ in range(AGENT_ROSTER_MAX)])


def _new_session() -> str:
    try:
        return _session_of_what_is_shared()
    except httpx2.HTTPStatusError:  # a story came upon it in a listing, and archived or deleted it
        for shared in (_environment, _stores, _agents):
            shared.cache_clear()
        return _session_of_what_is_shared()


def _session_of_what_is_shared() -> str:
    attached = [{"type": "memory_store", "memory_store_id": _stores()[0]}]
    body = {"agent": _agents()[0], "environment_id": _environment(), "resources": attached}
    session: str = _made("sessions", body)["id"]
    return session


@cache
def _erasure() -> str:
    erasure: str = _made("erasures", {"memory_store_ids": [_new_store()]})["id"]
    return erasure


def _existing(names: set[str]) -> dict[str, str]:
    """IDs of what was made for one request.

    A store, a memory in it, and a version of that memory which is not its head; an agent; an environment; a session,
    what it attached, and a token of it.
    """
    if "erasure_id" in names:
        return {"erasure_id": _erasure()}
    if "agent_id" in names:
        return {"agent_id": _new_agent()}
    if "environment_id" in names:
        return {"environment_id": _new_environment()}
    if "session_id" in names:
        found = {"session_id": _new_session(), "resource_id": _stores()[0]}
        if "token_id" in names:
            found["token_id"] = _made(f"sessions/{found['session_id']}/tokens", {})["id"]
        return {name: found[name] for name in names}
    store = _new_store()
    if names == {"memory_store_id"}:
        moved = {"path": "/customers/to-be-moved.md", "content": "by the example of a move"}
        _made(f"memory_stores/{store}/memories", moved)
        return {"memory_store_id": store}
    memory = _made(f"memory_stores/{store}/memories", {"path": "/a/b.md", "content": "first"})
    _made(f"memory_stores/{store}/memories/{memory['id']}", {"content": "second"})
    found = {
        "memory_store_id": store,
        "memory_id": memory["id"],
        "memory_version_id": memory["memory_version_id"],
    }
    return {name: found[name] for name in names}


def _name_what_exists(body: dict[str, Any], keep: set[str]) -> None:
    """Have a body that fits its schema name agents, environments and stores that are there, none of them twice.

    keep: IDs that stay where they are.
    """
    if "agent" in body:
        body["agent"] = _reference(body["agent"], _agents()[0], keep)
    if "environment_id" in body and body["environment_id"] not in keep:
        body["environment_id"] = _environment()
    for resource, store in zip(body.get("resources", []), _stores(), strict=False):
        if resource["memory_store_id"] not in keep:
            resource["memory_store_id"] = store
    for roster in _rosters(body.get("multiagent")):
        roster[:] = [_reference(entry, agent, keep) for entry, agent in zip(roster, _agents(), strict=False)]
    for holder in (body, body.get("agent")):
        if isinstance(holder, dict):
            _fit_servers_to_toolsets(holder)


def _fit_servers_to_toolsets(agent: dict[str, Any]) -> None:
    """Each MCP server has its toolset and the other way round."""
    toolsets = [tool for tool in agent.get("tools") or [] if tool["type"] == "mcp_toolset"]
    servers = list({server["name"]: server for server in agent.get("mcp_servers") or []}.values())
    if toolsets or servers:
        servers = servers or [{"type": "url", "name": "made for one request", "url": "http://server.invalid"}]
        for number, toolset in enumerate(toolsets):
            toolset["mcp_server_name"] = servers[min(number, len(servers) - 1)]["name"]
        agent["mcp_servers"] = servers[: len(toolsets)]


def _reference(entry: Any, agent: str, keep: set[str]) -> Any:
    """A reference to an agent, made to lead to this one unless it is to be kept."""
    if isinstance(entry, str):
        return entry if entry in keep else agent
    if "id" not in entry or entry["id"] in keep:
        return entry
    return {**entry, "id": agent, **({"version": 1} if "version" in entry else {})}


def _rosters(multiagent: dict[str, Any] | None) -> Iterator[list[Any]]:
    for holder in (multiagent, *((multiagent or {}).get(member) for member in ("subagents", "workflows"))):
        for field in ("agents", "predefined_agents"):
            if holder is not None and holder.get(field):
                yield holder[field]


@cache
def _archive() -> bytes:
    """A .tar of two texts."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in ("notes/a.md", "notes/b.md"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return made.getvalue()


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Let requests meet things that exist, so that they get past the 404."""
    assert case.meta is not None
    if case.meta.generation.mode.is_positive and "page" in case.query:
        del case.query["page"]  # no cursor can be invented
    # A story goes on with what its earlier requests made; elsewhere that may be gone or archived by now.
    keep = _told if case.meta.phase.name == TestPhase.STATEFUL else set()
    if _fits(case, ParameterLocation.BODY) and isinstance(case.body, dict):
        _name_what_exists(case.body, keep)
        if case.operation.path == _IMPORT and case.meta.generation.mode.is_positive:
            case.body["file"] = cast("Any", _archive())  # no archive can be invented
            case.body.pop("into", None)
    if case.operation.path == _ERASURES and isinstance(case.body, dict):
        case.body["dry_run"] = case.body.get("dry_run") or True  # the others need what is there
        if _fits(case, ParameterLocation.BODY):
            case.body["memory_store_ids"] = cast("Any", _stores()[:1])
    if case.meta.generation.mode.is_positive:
        _name_a_point(case)
    if not keep.isdisjoint(map(str, case.path_parameters.values())):
        return
    if 404 not in _statuses[case.operation.label]:
        # Once, it shall meet nothing.
        case.path_parameters.update({name: ids.new(_TAGS[name]) for name in case.path_parameters})
        return
    if _fits(case, ParameterLocation.PATH) and case.path_parameters:
        case.path_parameters.update(_existing(set(case.path_parameters)))
        if case.operation.path.endswith("/hold"):
            _made(f"memory_stores/{case.path_parameters['memory_store_id']}/hold", {})


def _name_a_point(case: Case[Any]) -> None:
    """Of a time and a number, exactly one names a past state; the made stores have a first change."""
    if "/as_of/" in case.operation.path:
        case.query.pop("at", None)
        case.query["seq"] = 1
    elif case.operation.path.endswith("/rollback") and isinstance(case.body, dict):
        case.body.pop("at", None)
        case.body["seq"] = 1


def _fits(case: Case[Any], location: ParameterLocation) -> bool:
    """Whether this part of the request was made to fit its schema."""
    assert case.meta is not None
    component = case.meta.components.get(location)
    return component is None or component.mode.is_positive


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Count it, and remember the ID of what it is about."""
    _statuses[case.operation.label][response.status_code] += 1
    if response.status_code == 200 and case.operation.path.startswith("/v1/") and case.method == "POST":
        _told.add(response.json().get("id", ""))


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Whether it is one."""
    if isinstance(failure, UnsupportedMethodResponse | AllowHeaderMismatch):
        # A POST there is answered with the reason why nothing can be attached any more; the document leaves it out.
        told_why: bool = case.operation.path == "/v1/sessions/{session_id}/resources"
        return not told_why
    if isinstance(failure, UseAfterFree):
        return not case.operation.path.startswith(_HISTORY)  # which is there to show what is gone
    if isinstance(failure, AcceptedNegativeData):
        # A refusal that schemathesis does not know; and an archive that `before_call` made a good one.
        body: Any = case.body
        was_mended = case.operation.path == _IMPORT and isinstance(body, dict) and body["file"] == _archive()
        return response.status_code != 413 and not was_mended
    if isinstance(failure, RejectedPositiveData) and response.status_code == 400:
        return not UNFORESEEABLE.match(response.json()["error"]["message"])
    return True
