"""A copy of a store that stays current: the changes after the last one that was seen, page after page."""

from typing import Any

from anthropic import Anthropic, NotFoundError

client = Anthropic()
stores = client.beta.memory_stores
store = stores.create(name="Followed").id


class Copy:
    """Paths and texts by memory. A real program writes both members down together."""

    def __init__(self) -> None:
        self.memories: dict[str, tuple[str, str]] = {}
        self.seen = 0
        """The number of the last change that is in the copy."""

    def catch_up(self) -> None:
        """Take every change since the last one."""
        page: Any = {"has_more": True}
        while page["has_more"]:
            page = client.get(f"/v1/memory_stores/{store}/changes?after={self.seen}", cast_to=object)
            if page["truncated"]:
                raise SystemExit("changes have expired: begin again with a snapshot")
            for change in page["data"]:
                self.take(change)
            self.seen = page["next_after"]

    def take(self, change: Any) -> None:
        """Take one change: the memory as it is by now, or its deletion."""
        print(change["operation"], change["path"])
        self.memories.pop(change["memory_id"], None)
        if change["operation"] != "deleted":
            try:
                memory = stores.memories.retrieve(change["memory_id"], memory_store_id=store)
            except NotFoundError:
                return  # It was deleted meanwhile: a later change says so.
            self.memories[memory.id] = (memory.path, memory.content or "")


copy = Copy()
first = stores.memories.create(store, path="/a.md", content="one")
stores.memories.create(store, path="/b.md", content="two")
copy.catch_up()
stores.memories.update(first.id, memory_store_id=store, path="/c.md")
stores.memories.delete(first.id, memory_store_id=store)
copy.catch_up()
print(sorted(copy.memories.values()))

# prints:
# created /a.md
# created /b.md
# modified /c.md
# deleted /c.md
# [('/b.md', 'two')]
