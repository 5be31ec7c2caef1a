"""Routes of agents."""

from typing import Annotated

from fastapi import APIRouter

from app.agents import wire
from app.agents.service import AgentFilters, Agents
from app.contract import clock
from app.http.documents import AgentId, Body, CallerParameter, NoBody, Query, answers
from app.http.pages import Page, PageQuery
from app.http.services import service

router = APIRouter(prefix="/v1/agents", tags=["agents"])

AgentsService = Annotated[Agents, service(Agents)]


@router.post("", response_model=wire.Agent, responses=answers(413))
async def create_agent(
    caller: CallerParameter, agents: AgentsService, body: Annotated[wire.CreateAgent, Body()]
) -> wire.Agent:
    """Create an agent. Nothing runs it here: sessions name it, and their snapshots keep what it was."""
    return wire.agent(await agents.create(caller, body.model_dump(exclude_unset=True)))


@router.get("", response_model=Page[wire.Agent], responses=answers())
async def list_agents(
    caller: CallerParameter, agents: AgentsService, query: Annotated[wire.ListAgents, Query()]
) -> Page[wire.Agent]:
    """List agents at their newest version, newest agent first."""
    filters = AgentFilters(
        query.include_archived,
        clock.microseconds_or_none(query.created_at_gte),
        clock.microseconds_or_none(query.created_at_lte),
    )
    rows, next_page = await agents.list_page(caller, filters, query.limit, query.page)
    return {"data": [wire.agent(row) for row in rows], "next_page": next_page}


@router.get("/{agent_id}", response_model=wire.Agent, responses=answers())
async def retrieve_agent(
    caller: CallerParameter, agents: AgentsService, agent_id: AgentId, query: Annotated[wire.RetrieveAgent, Query()]
) -> wire.Agent:
    """Retrieve an agent, archived or not, at its newest version or an older one."""
    return wire.agent(await agents.retrieve(caller, agent_id, query.version))


@router.post("/{agent_id}", response_model=wire.Agent, responses=answers(409, 413))
async def update_agent(
    caller: CallerParameter, agents: AgentsService, agent_id: AgentId, body: Annotated[wire.UpdateAgent, Body()]
) -> wire.Agent:
    """Change an agent: this makes a new version, unless nothing changes. Sessions keep the version they have."""
    given = body.model_dump(exclude_unset=True)
    return wire.agent(await agents.update(caller, agent_id, given, expected_version=given.get("version")))


@router.get("/{agent_id}/versions", response_model=Page[wire.Agent], responses=answers())
async def list_agent_versions(
    caller: CallerParameter, agents: AgentsService, agent_id: AgentId, query: Annotated[PageQuery, Query()]
) -> Page[wire.Agent]:
    """List an agent's versions, newest first."""
    rows, next_page = await agents.list_versions(caller, agent_id, query.limit, query.page)
    return {"data": [wire.agent(row) for row in rows], "next_page": next_page}


@router.post("/{agent_id}/archive", response_model=wire.Agent, responses=answers(413))
async def archive_agent(
    caller: CallerParameter, agents: AgentsService, agent_id: AgentId, body: NoBody = None
) -> wire.Agent:
    """Archive an agent permanently: it can no longer be changed, nor be given to a new session."""
    return wire.agent(await agents.archive(caller, agent_id))
