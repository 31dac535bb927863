"""What the driver is told: where to send, how long to wait, how many processes.

Frozen, and fit to travel to a worker over a pipe. Secrets live in `Target.headers` and nowhere else; what is written
to a manifest is `Target.described()`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from inferometer.errors import UserError
from inferometer.run import redact_text
from inferometer.spec import Spec

Usage = Literal["continuous", "final", "none"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One base URL, resolved: where to connect, and what to say there."""

    host: str
    port: int
    tls: bool
    path: str  # the request target, e.g. /v1/chat/completions
    proxy: tuple[str, int] | None = None
    proxy_headers: tuple[tuple[str, str], ...] = ()

    @property
    def authority(self) -> str:
        """The Host header."""
        default = 443 if self.tls else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        """Where the socket goes: the proxy, if there is one."""
        return self.proxy or (self.host, self.port)

    @property
    def target(self) -> str:
        """The request target: absolute towards a proxy of plain HTTP, else the path."""
        return f"http://{self.authority}{self.path}" if self.proxy and not self.tls else self.path


class Trust(Spec, frozen=True):
    """Whom TLS believes."""

    ca: str | None = None
    insecure: bool = False


class Patience(Spec, frozen=True):
    """How long to wait before a request has failed [s]; all are on by default, none is infinite.

    connect: until a connection stands. first_token: from sending to the first token. between: between two reads of a
    stream that has begun. total: from sending to the end.
    """

    connect_s: float = 10.0
    first_token_s: float = 120.0
    between_s: float = 30.0
    total_s: float = 900.0

    def __post_init__(self) -> None:
        for name in ("connect_s", "first_token_s", "between_s", "total_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive")


@dataclass(frozen=True, slots=True)
class Target:
    """A server under test: its base URLs, its protocol, and what it accepts."""

    endpoints: tuple[Endpoint, ...]
    dialect: str
    model: str
    headers: tuple[
        tuple[str, str], ...
    ] = ()  # authorization and the user's own; never written anywhere
    trust: Trust = field(default_factory=Trust)
    ignore_eos: bool = True
    usage: Usage = "continuous"  # what the server was seen to accept
    stream: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """Plain data for the manifest, without secrets."""
        return {
            "urls": [_url(endpoint) for endpoint in self.endpoints],
            "dialect": self.dialect,
            "model": self.model,
            "header_names": [name for name, _ in self.headers],
            "tls": {"ca": self.trust.ca, "insecure": self.trust.insecure},
            "proxy": [f"{e.proxy[0]}:{e.proxy[1]}" for e in self.endpoints if e.proxy],
            "accepts": {"ignore_eos": self.ignore_eos, "usage": self.usage, "stream": self.stream},
            "extra": self.extra,
        }


@dataclass(frozen=True, slots=True)
class Drive:
    """How the load is driven."""

    workers: int = 1
    warmup_s: float = 0.0
    duration_s: float | None = (
        None  # no row is started at or after it; None: the plan alone decides
    )
    patience: Patience = field(default_factory=Patience)
    retries: int = 0
    tokenizer: str | None = None
    stamps: str = "kernel"  # kernel | user
    keep_text: bool = False


def endpoint(url: str, path: str, *, environ: dict[str, str] | None = None) -> Endpoint:
    """The endpoint of a base URL; `path` is the dialect's own and is not repeated if the URL already ends with it.

    Proxies are taken from the usual environment variables (http_proxy, https_proxy, no_proxy).
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"{redact_text(url)!r} is not an http(s) URL",
            where="URL",
            remedy="write http://host:port",
        )
    tls = parts.scheme == "https"
    try:
        port = parts.port or (443 if tls else 80)
    except ValueError:
        raise UserError("the port is not a number below 65536", where=redact_text(url)) from None
    proxy, proxy_headers = _proxy(parts.scheme, parts.hostname, environ)
    full = _joined(parts.path, path) + (f"?{parts.query}" if parts.query else "")
    return Endpoint(parts.hostname, port, tls, full, proxy, proxy_headers)


def login(url: str) -> tuple[tuple[str, str], ...]:
    """The Authorization header of a URL with credentials in it (https://user:password@host); else nothing."""
    import base64

    parts = urlsplit(url)
    if parts.username is None:
        return ()
    pair = f"{parts.username}:{parts.password or ''}".encode()
    return (("Authorization", "Basic " + base64.b64encode(pair).decode()),)


def _joined(base: str, path: str) -> str:
    base = base.rstrip("/")
    if base.endswith(path):
        return base
    if base.endswith("/v1") and path.startswith("/v1/"):
        base = base.removesuffix("/v1")
    return base + path


def _proxy(
    scheme: str, host: str, environ: dict[str, str] | None
) -> tuple[tuple[str, int] | None, tuple[tuple[str, str], ...]]:
    from urllib.request import (  # type: ignore[attr-defined]
        getproxies_environment,
        proxy_bypass_environment,
    )

    if environ is None:
        proxies = getproxies_environment()
    else:
        proxies = {
            k.lower().removesuffix("_proxy"): v
            for k, v in environ.items()
            if k.lower().endswith("_proxy")
        }
    url = proxies.get(scheme) or proxies.get("all")
    if not url or proxy_bypass_environment(host, proxies):
        return None, ()
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise UserError(
            f"only http:// proxies are spoken, not {redact_text(url)!r}", where=f"{scheme}_proxy"
        )
    headers = tuple(("Proxy-Authorization", value) for _, value in login(url))
    return (parts.hostname, parts.port or 3128), headers


def _url(endpoint: Endpoint) -> str:
    return redact_text(f"http{'s' * endpoint.tls}://{endpoint.authority}{endpoint.path}")
