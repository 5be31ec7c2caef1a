"""Shapes of an agent's tools as they are given (contract, 5.5).

These models check each tool by itself; what crosses several of them is checked in `app.agents.definition`.
"""

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.http.numbers import JSON_INTEGER

T = TypeVar("T")

_Closed = ConfigDict(extra="forbid", strict=True)
_SPACE = r"\s\x1c-\x1f\x85\ufeff"
"""White space in every dialect of regular expressions: they differ in what `\\s` alone is."""
_HOST = rf"[^{_SPACE}/:]+"


class AlwaysAllowParams(BaseModel):
    """Calls run without a question."""

    model_config = _Closed

    type: Literal["always_allow"]


class AlwaysAskParams(BaseModel):
    """Calls wait for the user's consent."""

    model_config = _Closed

    type: Literal["always_ask"]


class AutoParams(BaseModel):
    """Each call is judged on its own."""

    model_config = _Closed

    type: Literal["auto"]


_PolicyParams = Annotated[AlwaysAllowParams | AlwaysAskParams | AutoParams, Field(discriminator="type")]


class ToolDefaultsParams(BaseModel):
    """What holds for each tool of a set that has no config of its own."""

    model_config = _Closed

    enabled: bool | None = Field(None, description="True if not given.")
    permission_policy: _PolicyParams | None = Field(
        None, description="If not given, `always_allow` for built-in tools and `always_ask` for those of MCP servers."
    )


class _ToolParams(BaseModel):
    model_config = _Closed

    enabled: bool | None = Field(None, description="The set's default if not given.")
    permission_policy: _PolicyParams | None = Field(None, description="The set's default if not given.")


class BashToolParams(_ToolParams):
    """The bash tool."""

    name: Literal["bash"]
    type: Literal["bash"] = "bash"


class EditToolParams(_ToolParams):
    """The edit tool."""

    name: Literal["edit"]
    type: Literal["edit"] = "edit"


class ReadToolParams(_ToolParams):
    """The read tool."""

    name: Literal["read"]
    type: Literal["read"] = "read"


class WriteToolParams(_ToolParams):
    """The write tool."""

    name: Literal["write"]
    type: Literal["write"] = "write"


class GlobToolParams(_ToolParams):
    """The glob tool."""

    name: Literal["glob"]
    type: Literal["glob"] = "glob"


class GrepToolParams(_ToolParams):
    """The grep tool."""

    name: Literal["grep"]
    type: Literal["grep"] = "grep"


class ToolReferenceParams(BaseModel):
    """One tool by its name."""

    model_config = _Closed

    type: Literal["tool_reference"]
    name: str


class EverySourceParams(BaseModel):
    """Every URL from this source may be fetched."""

    model_config = _Closed

    type: Literal["all"]


class NoSourceParams(BaseModel):
    """No URL from this source may be fetched."""

    model_config = _Closed

    type: Literal["none"]


class _SomeSourcesParams(BaseModel):
    model_config = _Closed

    tools: list[ToolReferenceParams] = Field(
        min_length=1, max_length=128, description="Each name once.", json_schema_extra={"uniqueItems": True}
    )


class OnlySourcesParams(_SomeSourcesParams):
    """URLs from the results of these tools alone may be fetched."""

    type: Literal["only"]


class ExceptSourcesParams(_SomeSourcesParams):
    """URLs from the results of all but these tools may be fetched."""

    type: Literal["except"]


_Shorthand = Literal["all", "none"]
_ToolSourcesParams = (
    _Shorthand
    | Annotated[
        EverySourceParams | NoSourceParams | OnlySourcesParams | ExceptSourcesParams, Field(discriminator="type")
    ]
)


_NONE: Any = {
    "anyOf": [{"const": "none"}, {"type": "object", "required": ["type"], "properties": {"type": {"const": "none"}}}]
}
_SOURCES = ("client_tool_results", "server_tool_results", "user_input")
_ALL_NONE: Any = {"required": [*_SOURCES], "properties": dict.fromkeys(_SOURCES, _NONE)}
_SERVER_TOOLS_ONLY: Any = {
    "properties": {"tools": {"items": {"properties": {"name": {"enum": ["web_search", "web_fetch"]}}}}}
}


class UrlSourcesParams(BaseModel):
    """Where URLs may come from that are fetched; not all three can be `none`."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"not": _ALL_NONE})

    client_tool_results: _ToolSourcesParams | None = Field(
        None, description="Results of custom tools; those named must be in the same `tools`."
    )
    server_tool_results: _ToolSourcesParams | None = Field(
        None,
        description="Results of `web_search` and `web_fetch`; no other can be named.",
        json_schema_extra=_SERVER_TOOLS_ONLY,
    )
    user_input: _Shorthand | Annotated[EverySourceParams | NoSourceParams, Field(discriminator="type")] | None = Field(
        None, description="The text of the user's messages."
    )


_FetchDomain = Annotated[str, Field(pattern=rf"^{_HOST}$", max_length=253)]
_SearchDomain = Annotated[str, Field(pattern=rf"^{_HOST}(/[^{_SPACE}]*)?$", max_length=2_048)]
_Domains = Annotated[list[T], Field(min_length=1, max_length=64)]
_DOMAINS = "Hosts without scheme and port, which also stand for their subdomains; not together with the other list."


_ONE_LIST_OF_DOMAINS: Any = {"not": {"required": ["allowed_domains", "blocked_domains"]}}


class WebFetchToolParams(_ToolParams):
    """The web_fetch tool."""

    model_config = ConfigDict(json_schema_extra=_ONE_LIST_OF_DOMAINS)

    name: Literal["web_fetch"]
    type: Literal["web_fetch"] = "web_fetch"
    allowed_domains: _Domains[_FetchDomain] = Field(default_factory=list, description=_DOMAINS)
    blocked_domains: _Domains[_FetchDomain] = Field(default_factory=list, description=_DOMAINS)
    max_content_tokens: Annotated[int, Field(ge=1, le=2**31 - 1), JSON_INTEGER] | None = Field(
        None, description="Tokens of fetched text per call, at most."
    )
    url_sources: UrlSourcesParams | None = None


class UserLocationParams(BaseModel):
    """Roughly where the user is."""

    model_config = _Closed

    type: Literal["approximate"]
    city: str | None = None
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")] | None = Field(None, description="ISO 3166-1, two letters.")
    region: str | None = None
    timezone: str | None = Field(None, description="IANA name.")


class WebSearchToolParams(_ToolParams):
    """The web_search tool."""

    model_config = ConfigDict(json_schema_extra=_ONE_LIST_OF_DOMAINS)

    name: Literal["web_search"]
    type: Literal["web_search"] = "web_search"
    allowed_domains: _Domains[_SearchDomain] = Field(default_factory=list, description=_DOMAINS)
    blocked_domains: _Domains[_SearchDomain] = Field(default_factory=list, description=_DOMAINS)
    user_location: UserLocationParams | None = None


class AgentToolsetParams(BaseModel):
    """The built-in tools."""

    model_config = _Closed

    type: Literal["agent_toolset_20260401"]
    configs: list[
        Annotated[
            BashToolParams
            | EditToolParams
            | ReadToolParams
            | WriteToolParams
            | GlobToolParams
            | GrepToolParams
            | WebFetchToolParams
            | WebSearchToolParams,
            Field(discriminator="name"),
        ]
    ] = Field(default_factory=list, description="For single tools, over the default.")
    default_config: ToolDefaultsParams | None = None


class McpToolParams(_ToolParams):
    """One tool of an MCP server."""

    name: str = Field(min_length=1, max_length=128)


class McpToolsetParams(BaseModel):
    """The tools of one MCP server."""

    model_config = _Closed

    type: Literal["mcp_toolset"]
    mcp_server_name: str = Field(min_length=1, max_length=255, description="One of the agent's `mcp_servers`.")
    configs: list[McpToolParams] = Field(default_factory=list, description="For single tools, over the default.")
    default_config: ToolDefaultsParams | None = None


def _check_representable(value: Any) -> Any:
    """Refuse numbers that can't be answered as they came: whole ones over 64 bits, and what is no number."""
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            _check_representable(child)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("whole numbers must fit in 64 bits")
    return value


_AnyJson = Annotated[Any, AfterValidator(_check_representable)]


class InputSchemaParams(BaseModel):
    """A JSON Schema of a custom tool's input; further keywords are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, _AnyJson]

    type: Literal["object"]
    properties: dict[str, _AnyJson] | None = None
    required: list[str] | None = None


class CustomToolParams(BaseModel):
    """A tool that the caller runs."""

    model_config = _Closed

    type: Literal["custom"]
    name: str = Field(pattern="^[A-Za-z0-9_-]{1,128}$", description="Unique among the agent's custom tools.")
    description: str = Field(description="What the tool does, for the agent.")
    input_schema: InputSchemaParams


ToolParams = Annotated[AgentToolsetParams | McpToolsetParams | CustomToolParams, Field(discriminator="type")]
