"""Host names under which the server accepts requests."""

import socket
from collections.abc import Sequence
from ipaddress import ip_address

import psutil

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether `host` is a loopback address or `localhost`; any other name counts as reachable."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def known_hosts(host: str, names: Sequence[str] = ()) -> list[str]:
    """Allowed values of the `Host` header for a server at `host`, without a port.

    Checking `Host` prevents DNS rebinding, where another site's name resolves to this machine and
    the browser treats this server as that site's.

    Args:
        host: address or name that the server is bound to.
        names: additional names, such as a proxy's.
    """
    known = {*LOOPBACK, in_url(host), *map(in_url, names)}
    if not is_loopback(host):
        addresses = [
            address.address.partition("%")[0]
            for interface in psutil.net_if_addrs().values()
            for address in interface
            if address.family in (socket.AF_INET, socket.AF_INET6)
        ]
        known |= {*map(in_url, addresses), socket.gethostname(), socket.getfqdn()}
    return sorted(name.lower() for name in known)


def in_url(host: str) -> str:
    """A host as in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
