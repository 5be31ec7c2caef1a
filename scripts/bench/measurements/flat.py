"""Row 7: the same requests on a database a hundred times larger."""

from collections.abc import Callable
from contextlib import ExitStack

from scripts.bench import dataset
from scripts.bench.bench import Bench
from scripts.bench.contest import Side
from scripts.bench.dataset import Shape
from scripts.bench.load import Figure
from scripts.bench.product import Installation, Product, install, serve
from scripts.bench.report import Goal, Row, row_of_times

_READABLE = 1_000
_SMALL = Shape(stores=10, memories_per_store=100, versions_per_memory=10, readable_per_store=_READABLE // 10)
_LARGE = Shape(stores=1_000, memories_per_store=100, versions_per_memory=10, readable_per_store=_READABLE // 1_000)
_CLIENTS = 4
"""Fewer than the small database has stores, so that no request waits for another's store there."""
_FLAT = Goal(at_most=1.25)


def _install(bench: Bench, name: str, shape: Shape) -> Installation:
    return install(bench.new_path(name), shape, database=bench.new_database(name))


def _listing_paths(shape: Shape) -> list[str]:
    """The second directory of each store: 25 memories, of which the page takes 20."""
    return [f"{dataset.store_path(store)}/memories?path_prefix=/area-0001/&limit=20" for store in range(shape.stores)]


def flat(bench: Bench) -> list[Row]:
    """Time per request on the large database over that on the small one; both servers run, one is loaded."""
    small, large = _install(bench, "small", _SMALL), _install(bench, "large", _LARGE)
    with ExitStack() as stack:
        stack.enter_context(bench.postgres_on(bench.cores.rest))
        servers = [stack.enter_context(serve(made, cpus=bench.cores.server)) for made in (large, small)]

        def side(product: Product, lines: list[str], content_bytes: int = 0) -> Side:
            paths = bench.write_lines("flat.paths", lines)
            target = product.target(paths, content_bytes=content_bytes)

            def measure() -> Figure:
                bench.cluster.checkpoint()
                return Figure(1 / bench.wrk(target, cpus=bench.cores.rest, clients=_CLIENTS).value)

            return Side(measure, settle=product.drain_staged if content_bytes else lambda: None)

        requests: list[tuple[str, Callable[[Product], Side]]] = [
            ("GET 1 KB", lambda product: side(product, product.installation.memory_paths())),
            ("list 20 basic", lambda product: side(product, _listing_paths(product.installation.shape))),
            ("update 1 KB", lambda product: side(product, product.installation.memory_paths(), 1024)),
        ]
        return [
            row_of_times(
                f"{what}, time per request, 1,000 stores of 100 memories of 10 versions; 10 such stores",
                bench.compete(*(make(product) for product in servers)),
                _FLAT,
            )
            for what, make in requests
        ]
