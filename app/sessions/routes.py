"""Routes of sessions, of what they attach, and of their tokens."""

from typing import Annotated

from fastapi import APIRouter, Path

from app.agents.wire import SessionAgent, snapshot
from app.contract import clock
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.http.access import open_to_sessions
from app.http.documents import Body, CallerParameter, NoBody, Omittable, Query, SessionId, SessionTokenId, answers
from app.http.pages import Page, PageQuery
from app.http.services import service
from app.sessions import token_wire, wire
from app.sessions.filters import SessionFilters
from app.sessions.prompt import memory_prompt
from app.sessions.service import Changes, NewSession, Sessions
from app.sessions.tokens import SessionTokens

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

SessionsService = Annotated[Sessions, service(Sessions)]
TokensService = Annotated[SessionTokens, service(SessionTokens)]


@router.post("", response_model=wire.SessionObject, responses=answers(413))
async def create_session(
    caller: CallerParameter, sessions: SessionsService, body: Annotated[wire.CreateSession, Body()]
) -> wire.SessionObject:
    """Create a session, with the memory stores that its agent gets."""
    agent = await _agent(caller, sessions, body.agent)
    new = NewSession(agent, body.environment_id, body.title, body.metadata, wire.attachments(body.resources))
    return wire.session(await sessions.create(caller, new))


async def _agent(
    caller: Caller, sessions: Sessions, wanted: str | wire.CreateSessionAgent | wire.CreateSessionAgentWithOverrides
) -> SessionAgent:
    """The agent as the session is to have it."""
    if isinstance(wanted, str):
        return snapshot(await sessions.agent_for(caller, wanted, None))
    overrides = wanted.overrides() if isinstance(wanted, wire.CreateSessionAgentWithOverrides) else None
    return snapshot(await sessions.agent_for(caller, wanted.id, wanted.version or None), overrides)


@router.get("", response_model=wire.SessionsPage, responses=answers())
async def list_sessions(
    caller: CallerParameter, sessions: SessionsService, query: Annotated[wire.ListSessions, Query()]
) -> wire.SessionsPage:
    """List sessions, newest first unless asked otherwise."""
    filters = SessionFilters(
        include_archived=query.include_archived,
        statuses=None if query.statuses is None else tuple(query.statuses),
        agent_id=query.agent_id,
        agent_version=query.agent_version,
        store_id=query.memory_store_id,
        deployment_id=query.deployment_id,
        created_from=clock.microseconds_or_none(query.created_at_gte),
        created_after=clock.microseconds_or_none(query.created_at_gt),
        created_to=clock.microseconds_or_none(query.created_at_lte),
        created_before=clock.microseconds_or_none(query.created_at_lt),
    )
    page = await sessions.list_page(caller, filters, ascending=query.order == "asc", limit=query.limit, page=query.page)
    data = [wire.session(each) for each in page.sessions]
    return {"data": data, "next_page": page.next_page, "prev_page": page.prev_page}


@router.get(
    "/{session_id}",
    response_model=wire.SessionObject,
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def retrieve_session(
    caller: CallerParameter, sessions: SessionsService, session_id: SessionId
) -> wire.SessionObject:
    """Retrieve a session, archived or not."""
    return wire.session(await sessions.retrieve(caller, session_id))


@router.post("/{session_id}", response_model=wire.SessionObject, responses=answers(413))
async def update_session(
    caller: CallerParameter,
    sessions: SessionsService,
    session_id: SessionId,
    body: Annotated[wire.UpdateSession, Body()],
) -> wire.SessionObject:
    """Change a session's title, its metadata, or its agent's tools and MCP servers."""
    agent = body.agent.model_dump(exclude_unset=True)
    changes = Changes(body.title, "title" in body.model_fields_set, body.metadata, agent)
    return wire.session(await sessions.update(caller, session_id, changes))


@router.delete("/{session_id}", response_model=wire.DeletedSession, responses=answers())
async def delete_session(
    caller: CallerParameter, sessions: SessionsService, session_id: SessionId
) -> wire.DeletedSession:
    """Delete a session and its tokens. Its memory stores stay, and so does what it wrote."""
    await sessions.delete(caller, session_id)
    return {"id": session_id, "type": "session_deleted"}


@router.post("/{session_id}/archive", response_model=wire.SessionObject, responses=answers(413))
async def archive_session(
    caller: CallerParameter, sessions: SessionsService, session_id: SessionId, body: NoBody = None
) -> wire.SessionObject:
    """End a session permanently, and with it its tokens."""
    return wire.session(await sessions.archive(caller, session_id))


@router.get(
    "/{session_id}/resources",
    response_model=Page[wire.MemoryStoreResource],
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def list_session_resources(
    caller: CallerParameter,
    sessions: SessionsService,
    session_id: SessionId,
    query: Annotated[wire.ListResources, Query()],
) -> Page[wire.MemoryStoreResource]:
    """List what a session has attached, in the order of attachment."""
    rows, next_page = await sessions.resources_page(caller, session_id, query.limit, query.page)
    return {"data": [wire.resource(row) for row in rows], "next_page": next_page}


# Not in the document, which tells what can be done: this says why it can't.
@router.post("/{session_id}/resources", response_model=wire.MemoryStoreResource, include_in_schema=False)
async def add_session_resource(
    caller: CallerParameter,
    sessions: SessionsService,
    session_id: SessionId,
    body: Annotated[wire.AddResource, Body()],
) -> wire.MemoryStoreResource:
    """Refuse to attach anything to a session that is there."""
    await sessions.retrieve(caller, session_id)
    if body.type == "memory_store":
        raise InvalidRequest(
            "type: a memory store is attached when a session is created, in its resources; "
            "a session that is there keeps those it has"
        )
    raise InvalidRequest(f"type: {body.type!r} is not supported; sessions attach memory stores, when they are created")


@router.get(
    "/{session_id}/resources/{resource_id}",
    response_model=wire.MemoryStoreResource,
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def retrieve_session_resource(
    caller: CallerParameter,
    sessions: SessionsService,
    session_id: SessionId,
    resource_id: Annotated[str, Path(description="ID of the memory store, which is the only ID of an attachment.")],
) -> wire.MemoryStoreResource:
    """Retrieve one attached memory store."""
    return wire.resource(await sessions.retrieve_resource(caller, session_id, resource_id))


@router.get(
    "/{session_id}/memory_prompt",
    response_model=wire.MemoryPrompt,
    responses=answers(),
    openapi_extra=open_to_sessions("read"),
)
async def retrieve_memory_prompt(
    caller: CallerParameter, sessions: SessionsService, session_id: SessionId
) -> wire.MemoryPrompt:
    """Retrieve the note about its memory stores that belongs in the agent's system prompt."""
    found = await sessions.retrieve(caller, session_id)
    return {"type": "memory_prompt", "session_id": session_id, "text": memory_prompt(found.resources)}


@router.post("/{session_id}/tokens", response_model=token_wire.NewSessionToken, responses=answers(413))
async def create_session_token(
    caller: CallerParameter,
    tokens: TokensService,
    session_id: SessionId,
    body: Annotated[Omittable[token_wire.CreateSessionToken], Body()] = None,
) -> token_wire.NewSessionToken:
    """Create a token with which the session's agent reads and writes the attached stores, and nothing else."""
    wanted = body or token_wire.CreateSessionToken()
    return token_wire.new_token(
        await tokens.create(caller.actor, caller.workspace_id, session_id, wanted.expires_in_seconds)
    )


@router.get("/{session_id}/tokens", response_model=Page[token_wire.SessionToken], responses=answers())
async def list_session_tokens(
    caller: CallerParameter,
    tokens: TokensService,
    session_id: SessionId,
    query: Annotated[PageQuery, Query()],
) -> Page[token_wire.SessionToken]:
    """List a session's tokens, newest first, without their secrets."""
    rows, next_page = await tokens.list_page(caller.workspace_id, session_id, query.limit, query.page)
    return {"data": [token_wire.token(row) for row in rows], "next_page": next_page}


@router.delete("/{session_id}/tokens/{token_id}", response_model=token_wire.DeletedSessionToken, responses=answers())
async def revoke_session_token(
    caller: CallerParameter, tokens: TokensService, session_id: SessionId, token_id: SessionTokenId
) -> token_wire.DeletedSessionToken:
    """Revoke a token: it is refused within 5 seconds."""
    await tokens.revoke(caller.actor, caller.workspace_id, session_id, token_id)
    return {"id": token_id, "type": "session_token_deleted"}
