"""Plans for the bounds: which statement of the product they run for a URL, and what they answer.

The statements are the product's own objects, so a bound can't run anything else than the product does.
"""

import json
from collections.abc import Iterator
from typing import Any

from app.contract import paths as contract_paths
from app.memories import queries
from app.storage.contents import blobs
from app.storage.rows.statements import Statement
from scripts.bench import dataset
from scripts.bench.errors import MeasurementError
from scripts.bench.product import Caller, Product


def recorded(product: Product) -> dict[str, Any]:
    """A plan for retrieving every readable memory: the product's one query, and the bytes it answered."""
    installation = product.installation
    answers = {}
    with product.caller() as caller:
        for url, (store, memory) in zip(installation.memory_paths(), dataset.targets(installation.shape), strict=True):
            arguments = {
                "memory_id": dataset.memory_id(installation.shape, store, memory),
                "store_id": dataset.store_id(store),
                "workspace_id": installation.workspace_id,
            }
            answers[url] = {
                "arguments": queries.FIND_WITH_CONTENT.postgresql.arguments(arguments),
                "body": caller.get(url).decode(),
            }
    return {
        "database_url": installation.database.url if installation.database else None,
        "sql": queries.FIND_WITH_CONTENT.postgresql.sql,
        "answers": answers,
    }


def _pages(caller: Caller, url: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every page of a listing: its URL and its items."""
    page: dict[str, Any] = {"next_page": ""}
    while (cursor := page["next_page"]) is not None:
        this = f"{url}&page={cursor}" if cursor else url
        page = json.loads(caller.get(this))
        yield this, page["data"]


def page_urls(caller: Caller, url: str) -> list[str]:
    """The URL of every page of a listing."""
    return [this for this, _ in _pages(caller, url)]


def listing(
    product: Product, statement: Statement, query: str, *, limit: int, prefix_length: int | None = None
) -> dict[str, Any]:
    """A plan for every page of the first store's listing; with content if the query asks for it."""
    installation = product.installation
    store = dataset.store_id(0)
    start, end = contract_paths.subtree("/")
    answers: dict[str, Any] = {}
    files: dict[str, str] = {}
    with product.caller() as caller:
        for url, items in _pages(caller, f"/v1/memory_stores/{store}/memories?{query}"):
            if not items:
                raise MeasurementError(f"{url} is an empty page")
            arguments = {
                "store_id": store,
                "workspace_id": installation.workspace_id,
                "start": items[0]["path"] if answers else start,
                "end": end,
                "prefix_length": len(start),
                "limit": limit + 1,
            }
            answers[url] = {"arguments": statement.postgresql.arguments(arguments)}
            for item in items:
                if item.get("content") is not None:
                    key = blobs.key(store, bytes.fromhex(item["content_sha256"]))
                    files[item["content_sha256"]] = str(installation.blob_directory / key)
    return {
        "database_url": installation.database.url if installation.database else None,
        "sql": statement.postgresql.sql,
        "answers": answers,
        "listing": {"limit": limit, "files": files or None, "prefix_length": prefix_length},
    }
