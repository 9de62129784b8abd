"""The network as this machine has it: which proxy leads to an address, and whose certificates are trusted."""

from __future__ import annotations

import functools
import ipaddress
import ssl
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from moa_nb.errors import SettingsError

__all__ = ["proxy_for", "tls_context"]


def proxy_for(url: str) -> str | None:
    """Return the proxy for an address, as the environment or else the system says; ``None`` if it is asked directly.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``ALL_PROXY`` name it, ``NO_PROXY`` the hosts (also ``10.0.0.0/8``) that it is
    not for. Where ``NO_PROXY`` is not set, this machine itself is asked directly. Scripts that find proxies
    (PAC) are not run. What is returned may hold a password: it is not for showing.

    Raises:
        SettingsError: a proxy that does not speak HTTP, or whose address cannot be read.
    """
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    given = proxies.get(parts.scheme) or proxies.get("all")
    if not given or not parts.hostname or _is_direct(parts.hostname, parts.port, proxies.get("no")):
        return None
    proxy = given if "://" in given else f"http://{given}"
    scheme, wrong = proxy.partition("://")[0].lower(), ""
    if scheme not in {"http", "https"}:
        wrong = f"is of a kind that cannot be used ({scheme}): it takes an HTTP proxy"
    elif not _is_readable(proxy):
        wrong = "cannot be read: it is written http://USER:PASSWORD@HOST:PORT, with / # ? @ in a password as %2F %23 %3F %40"
    if wrong:
        msg = f"the proxy for {parts.hostname} {wrong}; set {parts.scheme.upper()}_PROXY, or add the host to NO_PROXY"
        raise SettingsError(msg)
    return proxy


def _is_readable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and not (parts.path.strip("/") or parts.query or parts.fragment)
    except ValueError:
        return False


def _is_direct(host: str, port: int | None, exceptions: str | None) -> bool:
    if urllib.request.proxy_bypass(host if port is None else f"{host}:{port}"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return exceptions is None and (host == "localhost" or host.endswith(".localhost"))
    if exceptions is None:
        return address.is_loopback
    return any(_holds(entry.strip(), address) for entry in exceptions.split(","))


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False  # a name


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Return how a server's certificate is checked: against the system's store, and those of ``ca_file`` besides.

    On Windows and macOS the system itself decides, so that what an administrator installed counts.

    Raises:
        OSError: the file cannot be read, or holds no certificate (``ssl.SSLError``).
    """
    return _context(ca_file, None if ca_file is None else ca_file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _context(ca_file: Path | None, changed: int | None) -> ssl.SSLContext:  # noqa: ARG001 - a changed file is read again
    if sys.platform in {"win32", "darwin"}:
        import truststore

        context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        content = ca_file.read_bytes()
        # As text they are PEM, whatever else is between them; as bytes DER, which is what Windows exports.
        is_pem = b"-----BEGIN" in content
        context.load_verify_locations(cadata=content.decode("ascii", "ignore") if is_pem else content)
        # Python 3.13 began to refuse what many companies' own authorities leave out.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
