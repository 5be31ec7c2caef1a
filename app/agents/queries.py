"""SQL of agents and their versions. A row is an agent as one of its versions has it."""

from app.storage.rows.statements import Statement

# An older version was last changed when it was made; the newest also when the agent was archived.
_ROWS = """
    SELECT agents.id, agent_versions.version, agent_versions.definition, agents.created_at, agents.archived_at,
           CASE WHEN agent_versions.version = agents.version THEN agents.updated_at
                ELSE agent_versions.created_at END AS updated_at
      FROM agents JOIN agent_versions ON agent_versions.agent_id = agents.id
"""
_MINE = "agents.workspace_id = :workspace_id"
_ONE = f"agents.id = :agent_id AND {_MINE}"

INSERT = Statement(
    """
    INSERT INTO agents (id, workspace_id, version, created_at, updated_at)
    VALUES (:agent_id, :workspace_id, :version, :now, :now)
    """
)
INSERT_VERSION = Statement(
    """
    INSERT INTO agent_versions (agent_id, version, definition, created_at)
    VALUES (:agent_id, :version, :definition, :now)
    """
)
FIND = Statement(f"{_ROWS} WHERE {_ONE} AND agent_versions.version = agents.version")
FIND_VERSION = Statement(f"{_ROWS} WHERE {_ONE} AND agent_versions.version = :version")
LOCK = Statement(f"SELECT id FROM agents WHERE {_ONE} FOR UPDATE")
UPDATE = Statement("UPDATE agents SET version = :version, updated_at = :now WHERE id = :agent_id")
ARCHIVE = Statement("UPDATE agents SET archived_at = :now, updated_at = :now WHERE id = :agent_id")


def listing(*, include_archived: bool, continued: bool, backwards_from: bool, forwards_to: bool) -> Statement:
    """A page of agents at their newest version, newest agent first, by the parts that its filters need."""
    conditions = [_MINE, "agent_versions.version = agents.version"]
    if not include_archived:
        conditions.append("agents.archived_at IS NULL")
    if backwards_from:
        conditions.append("agents.created_at >= :created_from")
    if forwards_to:
        conditions.append("agents.created_at <= :created_to")
    if continued:
        conditions.append("(agents.created_at, agents.id) < (:before, :before_id)")
    return Statement(
        f"""
        {_ROWS} WHERE {" AND ".join(conditions)}
         ORDER BY agents.created_at DESC, agents.id DESC LIMIT :limit
        """
    )


def versions(*, continued: bool) -> Statement:
    """A page of one agent's versions, newest first."""
    older = " AND agent_versions.version < :version" if continued else ""
    return Statement(f"{_ROWS} WHERE {_ONE}{older} ORDER BY agent_versions.version DESC LIMIT :limit")
