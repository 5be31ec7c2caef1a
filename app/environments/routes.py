"""Routes of environments."""

from typing import Annotated

from fastapi import APIRouter

from app.environments import wire
from app.environments.service import Environments
from app.http.documents import Body, CallerParameter, EnvironmentId, NoBody, Query, answers
from app.http.pages import Page
from app.http.services import service

router = APIRouter(prefix="/v1/environments", tags=["environments"])

EnvironmentsService = Annotated[Environments, service(Environments)]


@router.post("", response_model=wire.Environment, responses=answers(409, 413))
async def create_environment(
    caller: CallerParameter,
    environments: EnvironmentsService,
    body: Annotated[wire.CreateEnvironment, Body()],
) -> wire.Environment:
    """Create an environment."""
    return wire.environment(await environments.create(caller, body.model_dump(exclude_unset=True)))


@router.get("", response_model=Page[wire.Environment], responses=answers())
async def list_environments(
    caller: CallerParameter,
    environments: EnvironmentsService,
    query: Annotated[wire.ListEnvironments, Query()],
) -> Page[wire.Environment]:
    """List environments, newest first."""
    rows, next_page = await environments.list_page(caller, query.include_archived, query.limit, query.page)
    return {"data": [wire.environment(row) for row in rows], "next_page": next_page}


@router.get("/{environment_id}", response_model=wire.Environment, responses=answers())
async def retrieve_environment(
    caller: CallerParameter, environments: EnvironmentsService, environment_id: EnvironmentId
) -> wire.Environment:
    """Retrieve an environment, archived or not."""
    return wire.environment(await environments.retrieve(caller, environment_id))


@router.post("/{environment_id}", response_model=wire.Environment, responses=answers(409, 413))
async def update_environment(
    caller: CallerParameter,
    environments: EnvironmentsService,
    environment_id: EnvironmentId,
    body: Annotated[wire.UpdateEnvironment, Body()],
) -> wire.Environment:
    """Change an environment. Sessions that it already has keep what they were started with."""
    row = await environments.update(caller, environment_id, body.model_dump(exclude_unset=True))
    return wire.environment(row)


@router.delete("/{environment_id}", response_model=wire.DeletedEnvironment, responses=answers(409))
async def delete_environment(
    caller: CallerParameter, environments: EnvironmentsService, environment_id: EnvironmentId
) -> wire.DeletedEnvironment:
    """Delete an environment that no session names; archive one that is in use."""
    await environments.delete(caller, environment_id)
    return {"id": environment_id, "type": "environment_deleted"}


@router.post("/{environment_id}/archive", response_model=wire.Environment, responses=answers(413))
async def archive_environment(
    caller: CallerParameter,
    environments: EnvironmentsService,
    environment_id: EnvironmentId,
    body: NoBody = None,
) -> wire.Environment:
    """Archive an environment permanently: it can no longer be changed, nor be given to a new session."""
    return wire.environment(await environments.archive(caller, environment_id))
