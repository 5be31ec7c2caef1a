"""How routes ask for their services: `Annotated[Memories, Service(Memories)]`-style parameters."""

from typing import Any

from fastapi import Depends, Request


class ServiceOf:
    """A dependency that gives the application's one instance of a service."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind

    def __call__(self, request: Request) -> Any:
        """As FastAPI would call it."""
        return request.app.state.services[self.kind]


def service(kind: type[Any]) -> Any:
    """The `Annotated` mark of a parameter that is a service."""
    return Depends(ServiceOf(kind))
