"""Rows 1 and 2: one memory read or changed by 32 clients, one server process, PostgreSQL."""

from app.memories import queries
from app.storage.rows import tables
from scripts.bench import answers
from scripts.bench.bench import CLIENTS, Bench
from scripts.bench.contest import Side
from scripts.bench.dataset import Shape, sql_tagged
from scripts.bench.load import Figure, Target, pgbench, pgbench_script
from scripts.bench.postgres import Database
from scripts.bench.product import Installation, install, serve
from scripts.bench.report import Goal, Row, row_of_rates
from scripts.bench.written import each_made_a_version

SHAPE = Shape(stores=256, memories_per_store=4)


def get(bench: Bench) -> list[Row]:
    """Against bare ASGI that runs the same query and answers the same bytes. The server has its own core."""
    installation = install(bench.new_path("get"), SHAPE, database=bench.new_database("get"))
    paths = bench.write_lines("get.paths", installation.memory_paths())
    with bench.postgres_on(bench.cores.rest), serve(installation, cpus=bench.cores.server) as product:
        plan = bench.write_plan("get.json", answers.recorded(product))
        with bench.bound_server("bare_postgres", plan) as port:
            outcome = bench.compete(
                Side(lambda: bench.wrk(product.target(paths), cpus=bench.cores.rest)),
                Side(lambda: bench.wrk(Target(port, paths), cpus=bench.cores.rest)),
            )
    return [row_of_rates(f"GET 1 KB, {CLIENTS} clients, PostgreSQL; bare ASGI + asyncpg", outcome, Goal(at_least=0.7))]


def _update_script(installation: Installation) -> str:
    """The product's statement for pgbench. Each client has its own stores; every update is a new content."""
    stores_per_client = SHAPE.stores // CLIENTS
    statement = queries.CHANGE_CONTENT_AT_ONCE.postgresql
    expressions = {
        "store_id": sql_tagged("memstore", ":store"),
        "memory_id": sql_tagged("mem", f":store * {SHAPE.memories_per_store} + :memory"),
        "version_id": sql_tagged("memver", ":version"),
        "workspace_id": f"'{installation.workspace_id}'",
        "content": f"convert_to(lpad((:version)::text, {SHAPE.content_bytes}, 'x'), 'UTF8')",
        "sha256": "sha256(int8send(:version))",
        "expected_sha256": "NULL",
        "size": str(SHAPE.content_bytes),
        "maximum": "104857600",
        "now": ":now",
        "actor_type": "'api_actor'",
        "actor_id": "'apikey_of_the_benchmark'",
    }
    return "\n".join(
        [
            r"\set count :count + 1",
            rf"\set store :client_id + {CLIENTS} * (:count % {stores_per_client})",
            rf"\set memory (:count / {stores_per_client}) % {SHAPE.memories_per_store}",
            rf"\set version :first + :count * {CLIENTS} + :client_id",
            r"\set now :now + 1",
            pgbench_script(statement.sql, statement.names, expressions).strip() + ";",
        ]
    )


class _Pgbench:
    """The bound for updates; runs on its own copy of the database."""

    def __init__(self, bench: Bench, installation: Installation, database: Database) -> None:
        self._bench = bench
        self._database = database
        self._script = bench.new_path("update.sql")
        self._script.write_text(_update_script(installation))
        self._round = 0

    def measure(self) -> Figure:
        """One round."""
        self._bench.cluster.checkpoint()
        return each_made_a_version(self._run, self._database)

    def _run(self) -> Figure:
        self._round += 1
        variables = {"count": 0, "first": self._round * 10**15, "now": 1_800_000_000_000_000}
        return pgbench(
            self._database,
            self._script,
            clients=CLIENTS,
            seconds=self._bench.options.seconds,
            variables=variables,
            cpus=self._bench.cores.every,
        )

    def empty_stage(self) -> None:
        """As the product's is when its mover is through."""
        self._database.execute(f"TRUNCATE {tables.staged_contents.name}")


def update(bench: Bench) -> list[Row]:
    """Against pgbench with the same statement. Both sides have all cores, as pgbench has no server to pin."""
    database = bench.new_database("update")
    installation = install(bench.new_path("update"), SHAPE, database=database)
    bound = _Pgbench(bench, installation, bench.new_database("pgbench", database))
    paths = bench.write_lines("update.paths", installation.memory_paths())
    with serve(installation, cpus=bench.cores.every) as product:

        def measure() -> Figure:
            bench.cluster.checkpoint()
            target = product.target(paths, content_bytes=SHAPE.content_bytes)
            return each_made_a_version(lambda: bench.wrk(target, cpus=bench.cores.every), database)

        outcome = bench.compete(
            Side(measure, settle=product.drain_staged),
            Side(bound.measure, settle=bound.empty_stage),
        )
    what = f"update 1 KB, {CLIENTS} clients, different stores, PostgreSQL; pgbench, same statement"
    return [row_of_rates(what, outcome, Goal(at_least=0.6))]
