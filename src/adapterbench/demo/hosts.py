"""By which names this machine may be asked for."""

import socket
from collections.abc import Sequence
from ipaddress import ip_address

import psutil

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone; a name other than localhost is not."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def known_hosts(host: str, names: Sequence[str] = ()) -> list[str]:
    """What the `Host` of a request to a server at `host` may be, without a port.

    A page of another site can have its own name resolved to this machine (DNS rebinding); the
    browser then takes this server for that site's, and only the `Host` tells them apart.

    Args:
        host: address or name that the server is bound to.
        names: further names by which people reach it, such as a proxy's.
    """
    known = {*LOOPBACK, in_url(host), *map(in_url, names)}
    if not is_loopback(host):
        addresses = [
            each.address.partition("%")[0]
            for interface in psutil.net_if_addrs().values()
            for each in interface
            if each.family in (socket.AF_INET, socket.AF_INET6)
        ]
        known |= {*map(in_url, addresses), socket.gethostname(), socket.getfqdn()}
    return sorted(each.lower() for each in known)


def in_url(host: str) -> str:
    """A host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
