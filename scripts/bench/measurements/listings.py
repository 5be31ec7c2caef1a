"""Row 6: pages of a store of 10,000 memories, and a cold download of 2,000."""

import json
import statistics
import time
from typing import Any

from app.memories import queries
from scripts.bench import answers, dataset
from scripts.bench.bench import CLIENTS, Bench
from scripts.bench.contest import Side
from scripts.bench.dataset import Shape
from scripts.bench.errors import MeasurementError
from scripts.bench.load import Figure, Target
from scripts.bench.product import Caller, Product, install, serve
from scripts.bench.report import Goal, Row, row_of_rates, row_of_times

_LARGE = Shape(stores=1, memories_per_store=10_000, directories=100)
_DOWNLOADED = Shape(stores=1, memories_per_store=2_000, directories=20)
_CLIENTS = 8
_FULL_PAGE = 20
_BASIC_PAGE = 100
_INFORMATION = Goal()
_CROWD = Goal(at_most=4.0)


def _row(bench: Bench, product: Product, what: str, plan: dict[str, Any]) -> Row:
    file = bench.write_plan("list.json", plan)
    paths = bench.write_lines("list.paths", plan["answers"])
    with bench.bound_server("bare_postgres", file) as port:
        outcome = bench.compete(
            Side(lambda: bench.wrk(product.target(paths), cpus=bench.cores.rest, clients=_CLIENTS)),
            Side(lambda: bench.wrk(Target(port, paths), cpus=bench.cores.rest, clients=_CLIENTS)),
        )
    what = f"{what} of 10,000, {_CLIENTS} clients, PostgreSQL; bare ASGI + asyncpg + orjson"
    return row_of_rates(what, outcome, _INFORMATION)


def _full_pages(product: Product) -> dict[str, Any]:
    return answers.listing(product, queries.LIST_WITH_CONTENT, f"limit={_FULL_PAGE}&view=full", limit=_FULL_PAGE)


def pages(bench: Bench) -> list[Row]:
    """Pages of all places of the listing in turn; content is cached on both sides."""
    installation = install(bench.new_path("lists"), _LARGE, database=bench.new_database("lists"))
    with bench.postgres_on(bench.cores.rest), serve(installation, cpus=bench.cores.server) as product:
        basic = answers.listing(product, queries.LIST, f"limit={_BASIC_PAGE}", limit=_BASIC_PAGE)
        children = answers.listing(
            product,
            queries.LIST_CHILDREN,
            f"limit={_BASIC_PAGE}&depth=1",
            limit=_BASIC_PAGE,
            prefix_length=len("/"),
        )
        return [
            _row(bench, product, "list 100 basic", basic),
            _row(bench, product, "list 20 full", _full_pages(product)),
            _row(bench, product, "list depth=1, 100 directories", children),
        ]


def crowd(bench: Bench) -> list[Row]:
    """Pages of a store of 2,000 for 32 clients at once, SQLite: how much longer the unluckiest wait than the usual."""
    installation = install(bench.new_path("crowd"), _DOWNLOADED, database=None)
    url = f"{dataset.store_path(0)}/memories?limit={_BASIC_PAGE}"
    with serve(installation, cpus=bench.cores.server) as product:
        with product.caller() as caller:
            paths = bench.write_lines("crowd.paths", answers.page_urls(caller, url))
        target = product.target(paths)
        rounds = [bench.wrk(target, cpus=bench.cores.rest) for _ in range(bench.options.rounds + 1)][1:]
    rates = statistics.median(figure.value for figure in rounds)
    waits = [(figure.p50_ms or 0.0, figure.p99_ms or 0.0) for figure in rounds]
    usual, unlucky = (statistics.median(wait[place] for wait in waits) for place in (0, 1))
    ratio = statistics.median(p99 / p50 for p50, p99 in waits)
    what = f"list {_BASIC_PAGE} basic of 2,000, {CLIENTS} clients who come at once, SQLite; its own median"
    return [
        Row(
            what,
            f"{rates:,.0f}/s, p99 {unlucky:.1f} ms",
            f"p50 {usual:.1f} ms",
            f"{ratio:.1f}",
            str(_CROWD),
            _CROWD.judge(ratio),
        )
    ]


def _download(caller: Caller, urls: list[str]) -> Figure:
    began = time.perf_counter()
    count = sum(len(json.loads(caller.get(url))["data"]) for url in urls)
    took = time.perf_counter() - began
    if count != _DOWNLOADED.memories_per_store:
        raise MeasurementError(f"the download brought {count} memories")
    return Figure(took)


def cold_download(bench: Bench) -> list[Row]:
    """Page after page on one connection, from servers just started; the files are in the page cache."""
    installation = install(bench.new_path("download"), _DOWNLOADED, database=bench.new_database("download"))
    with serve(installation, cpus=bench.cores.server) as product:
        plan = _full_pages(product)
    urls = list(plan["answers"])
    file = bench.write_plan("download.json", plan)

    def ours() -> Figure:
        with serve(installation, cpus=bench.cores.server) as product, product.caller() as caller:
            return _download(caller, urls)

    def bare() -> Figure:
        with bench.bound_server("bare_postgres", file) as port, Caller(port) as caller:
            return _download(caller, urls)

    with bench.postgres_on(bench.cores.rest):
        outcome = bench.compete(Side(ours), Side(bare))
    what = "cold download of 2,000 memories, 100 pages, PostgreSQL + local disk; bare ASGI + asyncpg + orjson"
    return [row_of_times(what, outcome, _INFORMATION)]
