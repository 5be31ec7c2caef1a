"""An assistant's notes on a person: one store for each user, found again by its metadata."""

from anthropic import Anthropic

client = Anthropic()
stores = client.beta.memory_stores


def store_of(user: str) -> str:
    """The ID of the user's store; made when it is first needed."""
    for store in stores.list():
        if store.metadata.get("user") == user:
            return store.id
    return stores.create(name=f"Notes on {user}", metadata={"user": user}).id


def remember(user: str, path: str, text: str) -> None:
    """Keep a text, in the place of what is there."""
    store = store_of(user)
    for memory in stores.memories.list(store, path_prefix="/"):
        if memory.path == path:
            stores.memories.update(memory.id, memory_store_id=store, content=text)
            return
    stores.memories.create(store, path=path, content=text)


def recall(user: str) -> str:
    """All that is known, as it goes into a prompt."""
    memories = stores.memories.list(store_of(user), view="full")
    return "\n".join(f"{memory.path}: {memory.content}" for memory in memories if memory.type == "memory")


remember("example-ada", "/food.md", "Likes tea.")
remember("example-ada", "/work.md", "Writes compilers.")
remember("example-ada", "/food.md", "Likes tea, and cake on Fridays.")
print(recall("example-ada"))

# prints:
# /food.md: Likes tea, and cake on Fridays.
# /work.md: Writes compilers.
