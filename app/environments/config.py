"""What an environment's `config` means when parts of it are left out (contract, 5.5).

Nothing here runs a container: a config is checked, completed with the vendor's defaults, kept, and shown.
"""

from collections.abc import Mapping
from typing import Any

from app.contract.errors import InvalidRequest

Config = dict[str, Any]
"""A complete config, as the wire shows it."""

PACKAGE_MANAGERS = ("apt", "cargo", "gem", "go", "npm", "pip")

_LIMITED = {"allow_mcp_servers": False, "allow_package_managers": False, "allowed_hosts": []}


_KINDS = {"cloud": "cloud", "anthropic_cloud": "cloud", "self_hosted": "self_hosted"}
"""What the types mean: the vendor's notebooks write `anthropic_cloud` for `cloud`."""


def complete(given: Mapping[str, Any] | None, current: Config | None = None) -> Config:
    """`given` over `current`, or over the defaults where there is no current one.

    What is absent or null keeps its value. Another kind of network starts from its defaults. The type is kept as it
    was written.

    Raises:
        InvalidRequest: the type would change, or packages are wanted that the network keeps out.

    """
    given = given or {"type": current["type"] if current else "cloud"}
    if current is not None and _KINDS[given["type"]] != _KINDS[current["type"]]:
        raise InvalidRequest(
            f"config.type: is {current['type']} and can't become {given['type']}", "invalid_config_type_change"
        )
    if given["type"] == "self_hosted":
        return {"type": "self_hosted"}
    before = current or {"networking": {"type": "unrestricted"}, "packages": {}}
    networking = _networking(given.get("networking"), before["networking"])
    packages = _packages(given.get("packages") or {}, before["packages"])
    closed = networking["type"] == "limited" and not networking["allow_package_managers"]
    if closed and any(packages[manager] for manager in PACKAGE_MANAGERS):
        raise InvalidRequest(
            "config.packages: limited networking keeps package registries out; "
            "set networking.allow_package_managers to true, or give no packages"
        )
    return {"type": given["type"], "networking": networking, "packages": packages}


def _given(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value is not None}


def _networking(given: Mapping[str, Any] | None, before: Mapping[str, Any]) -> dict[str, Any]:
    if given is None:
        return dict(before)
    if given["type"] == "unrestricted":
        return {"type": "unrestricted"}
    kept = before if before["type"] == "limited" else _LIMITED
    return {**kept, **_given(given)}


def _packages(given: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    none: dict[str, Any] = {manager: [] for manager in PACKAGE_MANAGERS}
    return {"type": "packages", **none, **before, **_given(given)}
