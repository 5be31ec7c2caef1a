"""Server-sent events, read as any client would read them."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class Event:
    """One event; a comment has the name ":" and its text as data."""

    name: str
    data: Any
    id: int | None = None


@dataclass
class _Parser:
    fields: dict[str, str] = field(default_factory=dict)

    def feed(self, line: str) -> Event | None:
        """The event that this line completes, if it does."""
        if line.startswith(":"):
            return Event(":", line[1:].strip())
        if line:
            name, _, value = line.partition(": ")
            assert name not in self.fields, f"{name} twice in one event"
            self.fields[name] = value
            return None
        if not self.fields:
            return None
        fields, self.fields = self.fields, {}
        assert fields.keys() <= {"id", "event", "data"}, fields
        return Event(fields["event"], json.loads(fields["data"]), int(fields["id"]) if "id" in fields else None)


class Events:
    """The events of one stream, with or without its comments."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._events = self._read()

    def _read(self) -> Iterator[Event]:
        parser = _Parser()
        for line in self.response.iter_lines():
            event = parser.feed(line)
            if event is not None:
                yield event
        assert not parser.fields, f"the stream ended within an event: {parser.fields}"

    def next(self, *, with_comments: bool = False) -> Event | None:
        """The next event; None at the end of the stream."""
        for event in self._events:
            if with_comments or event.name != ":":
                return event
        return None

    def changes(self, number: int) -> list[dict[str, Any]]:
        """The next so many events, which must be changes."""
        found = [self.next() for _ in range(number)]
        assert all(event is not None and event.name == "change" for event in found), found
        assert all(event is not None and event.id == event.data["seq"] for event in found), found
        return [event.data for event in found if event is not None]

    def rest(self) -> list[Event]:
        """What comes until the stream ends."""
        rest = []
        while (event := self.next()) is not None:
            rest.append(event)
        return rest


@contextmanager
def events(http: httpx2.Client, store_id: str, after: int | None = None, **headers: str) -> Iterator[Events]:
    """Follow a store; `_` in a header's name stands for `-`."""
    query = {} if after is None else {"after": str(after)}
    named = {"accept": EVENT_STREAM} | {name.replace("_", "-"): value for name, value in headers.items()}
    with http.stream("GET", f"/v1/memory_stores/{store_id}/changes", params=query, headers=named) as response:
        if response.status_code == 200:
            assert response.headers["content-type"] == EVENT_STREAM
        else:
            response.read()
        yield Events(response)


async def async_events(response: httpx2.Response) -> AsyncIterator[Event]:
    """The same for a client that is a coroutine; without comments."""
    parser = _Parser()
    async for line in response.aiter_lines():
        event = parser.feed(line)
        if event is not None and event.name != ":":
            yield event
