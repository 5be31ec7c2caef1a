"""The numbers of the contract, each with its unit. Section 1.8 of the vendor's contract unless said.

Limits an operator may change are settings (`app.settings`); these are fixed by the API.
"""

NAME_MAX_CHARACTERS = 255
DESCRIPTION_MAX_CHARACTERS = 1_024
METADATA_MAX_PAIRS = 16
METADATA_KEY_MAX_CHARACTERS = 64
METADATA_VALUE_MAX_CHARACTERS = 512

HOLD_REASON_MAX_CHARACTERS = 1_024
"""Why a store is under legal hold. Ours; the vendor has no holds."""

CONTENT_MAX_BYTES = 102_400
"""UTF-8 bytes of one memory."""

REFERENCE_MAX_CHARACTERS = 200
"""What an operator calls an erasure. Ours, as erasures are."""

PATH_MAX_BYTES = 1_024
"""UTF-8 bytes of a path, its leading slash included."""

PATH_MAX_SEGMENTS = 20

PAGE_LIMIT_DEFAULT = 20
PAGE_LIMIT_MAX = 100
PAGE_LIMIT_MAX_FULL = 20
"""A page with `view=full` holds at most this many items; a larger `limit` is capped, not refused."""

CHANGES_LIMIT_DEFAULT = 100
CHANGES_LIMIT_MAX = 1_000
"""Changes on one page of the change feed. Ours; the vendor has none."""

MOVE_MAX_MEMORIES = 10_000
"""Memories that one move of a directory may rename. Also ours."""

SESSION_MAX_STORES = 8
"""Memory stores that one session may attach."""

INSTRUCTIONS_MAX_CHARACTERS = 4_096
TITLE_MAX_CHARACTERS = 500
"""Of a session. The vendor gives no number."""

RESOURCES_PAGE_LIMIT_MAX = 1_000

SESSION_TOKEN_SECONDS_MIN = 60
SESSION_TOKEN_SECONDS_MAX = 604_800
SESSION_TOKEN_SECONDS_DEFAULT = 86_400
"""How long a session's token lives, in seconds: a minute to a week. Ours; the vendor has no such route."""

FILE_NAME_MAX_BYTES = 255
"""Bytes of one name in a directory: NAME_MAX of POSIX systems."""

AGENT_NAME_MAX_CHARACTERS = 256
AGENT_DESCRIPTION_MAX_CHARACTERS = 2_048
AGENT_SYSTEM_MAX_CHARACTERS = 100_000
AGENT_TOOLS_MAX = 256
AGENT_MCP_SERVERS_MAX = 20
AGENT_ROSTER_MAX = 20
"""Agents that one list of a `multiagent` may name."""

AGENT_VERSION_MAX = 999_999_999
"""Ours: versions are counted, and a larger number can't be one."""

ENVIRONMENT_DESCRIPTION_MAX_CHARACTERS = 2_048
"""The vendor gives no number; an agent's has this one."""
