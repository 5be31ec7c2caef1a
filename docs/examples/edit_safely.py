"""Two programs change one memory: a precondition sees that neither loses the other's change."""

from anthropic import Anthropic, ConflictError

client = Anthropic()
memories = client.beta.memory_stores.memories
store = client.beta.memory_stores.create(name="Shared list").id
made = memories.create(store, path="/list.md", content="milk\n")


def add(line: str, *, in_between: str = "") -> None:
    """Append a line to what is there; after a conflict, to what is there by then."""
    while True:
        seen = memories.retrieve(made.id, memory_store_id=store)
        if in_between:  # Another program is faster, once.
            memories.update(made.id, memory_store_id=store, content=f"{seen.content}{in_between}\n")
            in_between = ""
        try:
            memories.update(
                made.id,
                memory_store_id=store,
                content=f"{seen.content}{line}\n",
                precondition={"type": "content_sha256", "content_sha256": seen.content_sha256},
            )
        except ConflictError:
            print("it was changed meanwhile; reading it again")
        else:
            return


add("bread", in_between="eggs")
print(memories.retrieve(made.id, memory_store_id=store).content, end="")

# prints:
# it was changed meanwhile; reading it again
# milk
# eggs
# bread
