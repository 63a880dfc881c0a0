"""Where is NATS, and how does one show who one is? URLs, credentials, TLS; and one try to connect."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

import nkeys

from knotwork.bus import library
from knotwork.bus.wire import DirectClient
from knotwork.config import regular
from knotwork.sdk.errors import ConfigInvalid, Denied, Unreachable

CREDS_MAX = 64 * 1024
WEB_SCHEMES = ("ws", "wss")
SCHEMES = ("nats", "tls", *WEB_SCHEMES)


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates as file paths; `hostname` is what the server's certificate must be for. A server without is refused."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    hostname: str = ""
    handshake_first: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One NATS to connect to. At most one way of showing who one is; times are in seconds.

    A link that carries nothing any more is noticed when two pings, `ping_s` apart, had no answer: after three times
    that at the latest, 9 s by default.
    """

    urls: tuple[str, ...]
    name: str = "knotwork"
    user: str = ""
    password: str = ""
    token: str = ""
    seed: str = ""
    creds: str = ""
    tls: Tls | None = None
    connect_timeout_s: float = 5.0
    pause_min_s: float = 1.0
    pause_max_s: float = 30.0
    ping_s: float = 3.0
    inbox_prefix: str = "_INBOX"

    @property
    def shown(self) -> str:
        """Return the URLs without any password, for messages."""
        return ", ".join(shown_url(url) for url in self.urls)


def shown_url(url: str) -> str:
    """Return a URL without user and password."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"[:300]


def check(endpoint: Endpoint) -> None:
    """Raise `ConfigInvalid` when no connection could ever come of these settings."""
    for url in endpoint.urls:
        try:
            parts = urlparse(url)
            valid = parts.scheme in SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            valid = False
        if not valid:
            raise ConfigInvalid(
                f"{shown_url(url)!r} is not a NATS address.",
                code="bus.bad_url",
                hint="Write for example nats://host:4222 or tls://host:4222.",
            )
    if not endpoint.urls:
        raise ConfigInvalid("No NATS address given.", code="bus.no_url", hint='Set nats.urls = ["nats://host:4222"].')


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return the TLS settings; raises `ConfigInvalid` naming the file that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key or None)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(path for path in (tls.ca, tls.cert, tls.key) if path)
        raise ConfigInvalid(
            f"These TLS files cannot be used ({files}): {error}.",
            code="bus.bad_tls",
            hint="They must be readable PEM files, and cert and key must belong together.",
        ) from error
    return context


def _options(endpoint: Endpoint) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if endpoint.user:
        options |= {"user": endpoint.user, "password": endpoint.password}
    if endpoint.token:
        options["token"] = endpoint.token
    if endpoint.seed:
        _check_seed(endpoint.seed)
        options["nkeys_seed_str"] = endpoint.seed
    if endpoint.creds:
        _check_creds(endpoint.creds)
        options["user_credentials"] = endpoint.creds
    if endpoint.tls is not None:
        options["tls"] = tls_context(endpoint.tls)
        options["tls_handshake_first"] = endpoint.tls.handshake_first
        if endpoint.tls.hostname:
            options["tls_hostname"] = endpoint.tls.hostname
    return options


def _check_seed(seed: str) -> None:
    try:
        nkeys.from_seed(seed.encode())
    except Exception as error:  # the library lets foreign exceptions of several packages through
        raise ConfigInvalid(
            "The nkey seed is not one.", code="bus.bad_credentials", hint="A user seed has 58 characters: SU…"
        ) from error


def _check_creds(path: str) -> None:
    try:
        with regular.opened(path) as file:
            text = file.read(CREDS_MAX).decode("ascii")
    except (OSError, ValueError) as error:
        raise ConfigInvalid(
            f"The creds file {path} cannot be read: {error}.", code="bus.bad_credentials", hint="Check path and owner."
        ) from error
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise ConfigInvalid(
            f"{path} is not a creds file of NATS.",
            code="bus.bad_credentials",
            hint="It holds a user JWT and an nkey seed; `nsc generate creds` makes one.",
        )


def next_pause_s(endpoint: Endpoint, last_s: float, chance: float) -> float:
    """Return how long to wait before the next try, in seconds; `chance` is random, from 0 to 1.

    Anything between the shortest pause and twice the last one, never above the longest: nodes that lost the same server
    at the same moment come back one after the other.
    """
    high_s = min(max(last_s, endpoint.pause_min_s) * 2, endpoint.pause_max_s)
    return min(endpoint.pause_min_s, high_s) + chance * max(0.0, high_s - endpoint.pause_min_s)


async def connect(endpoint: Endpoint, heard: Callable[[Exception], None]) -> DirectClient:
    """Try each URL once and return the client of the first that answers; `heard` is told what goes wrong later.

    Raises `Denied` when NATS refuses the credentials, `Unreachable` when there is no answer, `ConfigInvalid` when the
    settings can never work.
    """
    check(endpoint)
    options = _options(endpoint)
    problems: list[str] = []
    for url in endpoint.urls:
        scheme = urlparse(url).scheme
        by_tls = scheme == "tls" or (endpoint.tls is not None and scheme not in WEB_SCHEMES)
        client = DirectClient(by_tls=by_tls)
        try:
            await _try(client, url, endpoint, options, heard)
        except BaseException as error:
            client.scrap()
            if not isinstance(error, Exception):
                raise
            # whatever it is: a stranger who answers at this address can make nats-py raise anything
            text = (client.trouble or str(error) or f"no answer within {endpoint.connect_timeout_s:g} s")[:500]
            if _refuses(text.lower()):
                raise Denied(
                    f"NATS at {shown_url(url)} refuses these credentials.",
                    code="bus.denied",
                    hint="Check user, token, nkey_seed or creds under [nats].",
                ) from error
            problems.append(f"{shown_url(url)}: {text}")
        else:
            client.trouble = ""
            return client
    raise Unreachable(
        f"NATS cannot be reached: {'; '.join(problems)}.",
        code="bus.unreachable",
        hint=_what_to_do(problems),
    )


_CUT = ("connection lost", "reset", "eof", "broken pipe")
"""How it is told that a server hung up: what a TLS server does with one whose certificate it does not take."""


def _what_to_do(problems: list[str]) -> str:
    """Return the hint for addresses that nobody was reached at: a server whose TLS does not fit ours is there."""
    told = [problem.lower() for problem in problems]
    if any("secure connection not available" in one for one in told):
        return (
            "It speaks no TLS, or somebody in between takes it away: nothing was said to it. Without TLS the address"
            " begins with nats://, and there is no [nats.tls]."
        )
    cut = any(one.startswith("tls:") and any(word in one for word in _CUT) for one in told)
    if cut or any(word in one for one in told for word in ("ssl:", "[ssl", "certificate")):
        return (
            "It speaks TLS, and that does not fit: check ca, cert and key under [nats.tls], and whether its certificate is"
            " still valid, and for this host."
        )
    return "Check the address, and that the server runs."


def _refuses(said: str) -> bool:
    """Return whether what a server said is about our credentials, and not that we were too slow to show them."""
    return ("authorization" in said or "authentication" in said) and "timeout" not in said


async def _try(
    client: DirectClient, url: str, endpoint: Endpoint, options: dict[str, Any], heard: Callable[[Exception], None]
) -> None:
    async def on_error(error: Exception) -> None:
        client.trouble = str(error) or type(error).__name__
        if isinstance(error, library.errors.UnexpectedEOF | OSError):
            client.lost.set()
        heard(error)

    async def on_gone() -> None:
        client.lost.set()

    if urlparse(url).scheme in WEB_SCHEMES:
        library.load_web_sockets()
    async with asyncio.timeout(endpoint.connect_timeout_s):
        await client.connect(
            servers=[url],
            name=endpoint.name,
            allow_reconnect=False,
            max_reconnect_attempts=1,  # 0 would mean: for ever, inside `connect`
            reconnect_time_wait=0,
            connect_timeout=int(max(1, endpoint.connect_timeout_s)),
            error_cb=on_error,
            closed_cb=on_gone,
            disconnected_cb=on_gone,
            inbox_prefix=endpoint.inbox_prefix,
            ping_interval=endpoint.ping_s,  # type: ignore[arg-type]  # it only sleeps so long
            max_outstanding_pings=2,
            pending_size=64 * 1024 * 1024,
            **options,
        )
