"""Where a webhook may go: what a stranger registers must not become a way into the operator's own network."""

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from ledger.core.errors import InputInvalid

Resolve = Callable[[str, int], list[str]]

_UNICAST = ipaddress.IPv6Network("2000::/3")  # all of IPv6 that is given to anybody
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64: IPv4 in the last four bytes
_PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")  # of which older Pythons say it is global


def resolve(host: str, port: int) -> list[str]:
    """Every address of a name."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, and the one address that was looked at and is connected to: a name that changes cannot lead elsewhere."""

    url: str  # with the address in the host's place
    host: str  # as it was named, with a port if it had one: for the Host header
    name: str  # as it was named: for TLS


def checked(url: str, *, private: bool) -> SplitResult:
    """The form of a URL. `private` allows plain HTTP and addresses of one's own network.

    Raises:
        InputInvalid: it is no URL a webhook may have.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InputInvalid("this is not a URL", field="url") from None
    if parts.scheme not in ("https", "http") or not parts.hostname or (port is not None and not 0 < port < 65_536):
        raise InputInvalid("a webhook's URL begins with https:// and a host", field="url")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InputInvalid("a webhook's URL has no user, password or fragment", field="url")
    if not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
        raise InputInvalid("a webhook's URL is plain ASCII", field="url")
    if parts.scheme == "http" and not private:
        raise InputInvalid("a webhook's URL begins with https://", field="url")
    return parts


def target(url: str, *, private: bool, look_up: Resolve = resolve) -> Target:
    """Where to connect to now.

    Raises:
        InputInvalid: the name is of an address that is not public.
        OSError: the name is of no address.
    """
    parts = checked(url, private=private)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        addresses = look_up(host, port)
    except UnicodeError:  # a label that is empty or too long
        addresses = []
    if not addresses:
        raise OSError(f"{host} is the name of no address")
    # Which address it is, is not said: names may be known inside that are not known outside.
    if not private and not all(map(_public, addresses)):
        raise InputInvalid(f"{host} is not of public addresses only", field="url")
    address = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    pinned = parts._replace(netloc=f"{address}:{port}").geturl()
    return Target(pinned, parts.netloc, host)


def _public(address: str) -> bool:
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in _TRANSLATED else None
        inner = found.ipv4_mapped or found.sixtofour or translated
        if inner is None:
            return found in _UNICAST and found.is_global
        found = inner
    return found.is_global and not found.is_multicast and found not in _PROTOCOLS
