"""What an agent gets instead of your key: a token that reads one store, writes another one, and opens no third."""

from typing import Any

from anthropic import Anthropic, NotFoundError, PermissionDeniedError

client = Anthropic()
stores = client.beta.memory_stores
handbook = stores.create(name="Handbook").id
notes = stores.create(name="Notes of the agent").id
secret = stores.create(name="Not for agents").id
stores.memories.create(handbook, path="/rules.md", content="Ask before you delete.")

agent = client.beta.agents.create(name="Helper", model="claude-opus-5-5")
environment = next(
    (each for each in client.beta.environments.list() if each.name == "example"), None
) or client.beta.environments.create(name="example")
session = client.beta.sessions.create(
    agent=agent.id,
    environment_id=environment.id,
    title="Read the rules",
    resources=[
        {"type": "memory_store", "memory_store_id": handbook, "access": "read_only"},
        {"type": "memory_store", "memory_store_id": notes, "access": "read_write"},
    ],
)
token: Any = client.post(f"/v1/sessions/{session.id}/tokens", body={"expires_in_seconds": 3600}, cast_to=object)

# From here on with the token alone, as the agent would.
memories = Anthropic(api_key=token["token"]).beta.memory_stores.memories
for memory in memories.list(handbook, view="full"):
    print(memory.path, memory.content)
print(memories.create(notes, path="/done.md", content="Read the rules.").path, "is written")
try:
    memories.create(handbook, path="/mine.md", content="New rule.")
except PermissionDeniedError:
    print("the handbook can't be written")
try:
    memories.list(secret)
except NotFoundError:
    print("the third store is not there")

# prints:
# /rules.md Ask before you delete.
# /done.md is written
# the handbook can't be written
# the third store is not there
