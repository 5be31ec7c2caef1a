"""What proxies in front say about a request: where it came from, and under which name and path they show the service.

Only proxies in the operator's networks are believed; from anybody else the same header fields mean nothing.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from app.http.asgi import Application, Receive, Scope, Send
from app.settings import ROOT_PATH

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_MAPPED = 0xFFFF_0000_0000
"""`::ffff:0:0`, where the IPv4 addresses are among those of IPv6."""
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_OURS = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix"})


class Forwarded:
    """Gives `app` each request as its client sent it to the first proxy.

    `scope["client"]` is the client, `scope["scheme"]` and the header `host` are what it asked, and
    `scope["root_path"]` is the prefix; `scope["path"]` is without it.
    """

    def __init__(self, app: Application, trusted: Sequence[Network], root_path: str = "") -> None:
        """trusted: where the proxies are. root_path: the prefix, if none of them says one."""
        self._app = app
        self._trusted = trusted
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            self._read(scope)
        await self._app(scope, receive, send)

    def _read(self, scope: Scope) -> None:
        prefix = self._root_path
        client = scope.get("client")
        peer = None if client is None else _address(client[0])
        if client is not None and peer is not None and self._is_trusted(peer):
            said: dict[bytes, list[str]] = {}
            for name, value in scope["headers"]:
                if name in _OURS:
                    # Of a list the last element is the nearest proxy's.
                    said.setdefault(name, []).extend(part.strip() for part in value.decode("latin-1").split(","))
            if addresses := said.get(b"x-forwarded-for"):
                scope["client"] = (self._first_stranger(addresses, str(peer)), 0)
            scheme = said.get(b"x-forwarded-proto", [""])[-1].lower()
            if scheme in ("http", "https"):
                scope["scheme"] = scheme
            host = said.get(b"x-forwarded-host", [""])[-1]
            if _HOST.fullmatch(host):
                others = [(name, value) for name, value in scope["headers"] if name != b"host"]
                scope["headers"] = [(b"host", host.encode()), *others]
            wanted = said.get(b"x-forwarded-prefix", [""])
            if len(wanted) == 1 and wanted[0] and ROOT_PATH.fullmatch(wanted[0].removesuffix("/")):
                prefix = wanted[0].removesuffix("/")
        scope["root_path"] = prefix
        path: str = scope["path"]
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            # This proxy shows the prefix and leaves it in place.
            scope["path"] = path[len(prefix) :] or "/"

    def _is_trusted(self, found: Address) -> bool:
        same: list[Address] = [found]
        if isinstance(found, IPv4Address):
            same.append(IPv6Address(_MAPPED + int(found)))
        return any(each in network for each in same for network in self._trusted)

    def _first_stranger(self, addresses: Sequence[str], nearest: str) -> str:
        """The address nearest to us that no trusted proxy has; what is before it can be anybody's invention."""
        for text in reversed(addresses):
            address = _address(text)
            if address is None:
                return nearest
            nearest = str(address)
            if not self._is_trusted(address):
                break
        return nearest


def _address(text: str) -> Address | None:
    """An address in the one form that we know it by; None if the text is none.

    An IPv4 address that travels as an IPv6 one is itself. A zone names an interface of another host.
    """
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
