"""How is an agent started by something that has a URL? One request that says everything, signed when there is a secret."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import msgspec
from pydantic import Field, model_validator

from knotwork.sdk import (
    Condition,
    Context,
    Factory,
    Invalid,
    Launched,
    LaunchRequest,
    PluginConfig,
    SecretRef,
    SpinUp,
    TimedOut,
)
from knotwork_plugins.spinups import answers, environment, places, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx

    from knotwork_plugins.spinups.answers import Answer

IN_BODY = (*places.TOLD, "claim", "env", "env.")
IN_URL = places.TOLD
IN_REF = ("launch", "target", "answer.")
KEPT_KEYS, KEPT_CHARS = 16, 200
GONE = frozenset({404, 410})
STATES = ("starting", "running", "gone", "failed")
ENDS_WITHIN_S, LOOK_S = 60.0, 0.5
SIGNED = "whsec_"


class WebhookConfig(PluginConfig):
    """Options of a target that is a URL."""

    place_keys: ClassVar[tuple[str, ...]] = ("url",)

    url: str = Field(
        min_length=8,
        max_length=4096,
        description="what to call; {launch}, {target}, {project}, {task} … may stand in it",
    )
    method: Literal["POST", "PUT", "PATCH", "GET"] = Field(
        default="POST", description="the HTTP method; GET has no body, so the agent must get its credentials elsewhere"
    )
    headers: dict[str, str | SecretRef] = Field(
        default_factory=dict, max_length=32, description="headers to send; values are strings or secret references"
    )
    body: dict[str, Any] | str | None = Field(
        default=None,
        description="a table, or JSON text, with places such as {launch}, {env.KNOTWORK_URL}, {env}; unset: all of it",
    )
    secret: SecretRef | None = Field(
        default=None, description="signs requests as Standard Webhooks do (webhook-id, -timestamp, -signature)"
    )
    ok_statuses: tuple[int, ...] = Field(
        default=(200, 201, 202, 204), min_length=1, description="statuses that mean that it was started"
    )
    request_timeout_s: float = Field(default=30.0, gt=0, le=600, description="seconds one request may take")
    status_url: str = Field(
        default="",
        max_length=4096,
        description="asked (GET) how it is; {launch} and {answer.KEY} of the first answer may stand in it",
    )
    stop_url: str = Field(default="", max_length=4096, description="called to end it; the same may stand in it")
    stop_method: Literal["DELETE", "POST", "PUT"] = Field(default="DELETE", description="the HTTP method for that")
    probe_url: str = Field(
        default="", max_length=4096, description="asked (GET) whether all is well; empty: only a connection is made"
    )
    insecure: bool = Field(
        default=False, description="allow http:// to another machine: a VPN protects it, since secrets go through"
    )
    verify: bool = Field(default=True, description="check the server's certificate; turn off for tests only")
    ca_file: str = Field(default="", max_length=4096, description="file with the certificates to trust instead")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name, allowed in (("url", IN_URL), ("status_url", IN_REF), ("stop_url", IN_REF), ("probe_url", ())):
            if value := getattr(self, name):
                _check_url(name, value, insecure=self.insecure)
                places.check(value, allowed)
        if self.body is not None:
            places.check(self.body, IN_BODY)
        if isinstance(self.body, str):
            nothing = dict.fromkeys(IN_BODY, '"\\\n')
            try:
                msgspec.json.decode(places.fill_json_text(self.body, nothing, {}).encode())
            except msgspec.MsgspecError as error:
                msg = f"body is no JSON once its places are filled: {error}; write texts in quotes"
                raise ValueError(msg) from None
        for name, header in self.headers.items():
            odd = isinstance(header, str) and any(c in header for c in "\r\n\0")
            if not name or not name.isascii() or any(c in name for c in "\r\n: \0") or odd:
                msg = f"no header can be written as {name!r}"
                raise ValueError(msg)
        return self


class Webhook:
    """The spin-up: what is behind the URL does the work."""

    def __init__(self, config: WebhookConfig, context: Context, client: httpx.AsyncClient) -> None:
        """Keep the client, which the opener closes."""
        self._config = config
        self._context = context
        self._client = client
        self._who = f"the webhook {urlsplit(config.url).netloc.rpartition('@')[2]}"

    async def probe(self) -> None:
        """Raise when `probe_url` answers with an error, or, without one, when there is no connection to the URL."""
        config = self._config
        secrets: list[str] = []
        if config.probe_url:
            answer = await self._ask("GET", config.probe_url, "probe", b"", secrets)
            if not answer.good:
                raise answers.refusal(answer, self._who, secrets=secrets, now_s=time.time())
            return
        # What a request without its body would start is not known, so it is only seen whether somebody is there.
        parts = urlsplit(config.url)
        answer = await self._ask("OPTIONS", f"{parts.scheme}://{parts.netloc}/", "probe", b"", secrets)
        if answer.status in (401, 502, 503, 504):
            raise answers.refusal(answer, self._who, secrets=secrets, now_s=time.time())

    async def launch(self, request: LaunchRequest) -> Launched:
        """Send the request; a second one with the same id is told apart by its headers alone."""
        config = self._config
        env = await environment.gathered({}, request, self._context.secrets)
        values = places.values_of(request)
        secrets = words.secrets_in(env)
        try:
            url = places.fill_url(config.url, values)
        except ValueError as error:
            raise Invalid(f"the URL of this launch cannot be written: {error}.", code="launch.bad_url") from error
        body = b"" if config.method == "GET" else self._body(request, values, env)
        answer = await self._ask(config.method, url, request.id, body, secrets)
        if answer.status not in config.ok_statuses:
            if answer.good:
                raise Invalid(
                    f"{self._who} answered {answer.status}, which is not in `ok_statuses`.",
                    code="launch.refused",
                    hint="Add it there if it means that the agent was started.",
                )
            raise answers.refusal(answer, self._who, secrets=secrets, now_s=time.time())
        ref = {"launch": request.id, "target": request.target, "answer": _kept(answer, secrets)}
        return Launched(ref)

    async def condition(self, ref: Mapping[str, Any]) -> Condition:
        """Ask `status_url`; without one nobody can tell, and it counts as running."""
        if not words.text_in(ref, "launch"):
            return Condition("gone", "there was no such launch")
        if not self._config.status_url:
            return Condition("running", "nobody can tell: the target has no `status_url`")
        answer = await self._ask("GET", self._filled("status_url", ref), words.text_in(ref, "launch"), b"", [])
        if answer.status in GONE:
            return Condition("gone", f"{self._who} does not know it any more")
        if not answer.good:
            raise answers.refusal(answer, self._who, now_s=time.time())
        said = answer.table(self._who) if answer.body.strip() else {}
        state, why = said.get("state"), said.get("why")
        if state not in STATES:
            return Condition("running")
        return Condition(state, words.last_words(why.encode()) if isinstance(why, str) else "")

    async def stop(self, ref: Mapping[str, Any], grace_s: float) -> None:
        """Call `stop_url` and wait until it is gone; raises `Invalid` when there is no `stop_url`."""
        launch = words.text_in(ref, "launch")
        if not launch:
            return
        if not self._config.stop_url:
            raise Invalid(
                f"{self._who} has no way to end what it started.",
                code="launch.cannot_stop",
                hint="Set `stop_url`, or let the agent end by itself when it is told to or has been idle.",
            )
        body = msgspec.json.encode({"launch": launch, "grace_s": grace_s})
        url = self._filled("stop_url", ref)
        answer = await self._ask(self._config.stop_method, url, f"{launch}.stop", body, [])
        if not answer.good and answer.status not in GONE:
            raise answers.refusal(answer, self._who, now_s=time.time())
        if not self._config.status_url:
            return
        try:
            async with asyncio.timeout(grace_s + ENDS_WITHIN_S):
                while (await self.condition(ref)).state not in ("gone", "failed"):  # noqa: ASYNC110  far away
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as error:
            raise TimedOut(
                f"{self._who} still knows it {grace_s + ENDS_WITHIN_S:g} s after it was told to end it.",
                code="launch.will_not_end",
                hint="Look at the log of what is behind the URL.",
            ) from error

    def _body(self, request: LaunchRequest, values: Mapping[str, str], env: Mapping[str, str]) -> bytes:
        template = self._config.body
        if template is None:
            return msgspec.json.encode({**words.told(request), "env": env})
        if isinstance(template, str):
            return places.fill_json_text(template, values, env).encode()
        return msgspec.json.encode(places.fill_json(template, values, env))

    def _filled(self, key: Literal["status_url", "stop_url"], ref: Mapping[str, Any]) -> str:
        answer = ref.get("answer")
        values = {name: words.text_in(ref, name) for name in ("launch", "target")}
        if isinstance(answer, dict):
            values |= {f"answer.{name}": str(value) for name, value in answer.items()}
        try:
            return places.fill_url(getattr(self._config, key), values)
        except ValueError as error:
            raise Invalid(
                f"`{key}` cannot be filled for this launch: {error}.",
                code="launch.bad_url",
                hint="The first answer must be a JSON object with the keys that stand in it as {answer.KEY}.",
            ) from error

    async def _ask(self, method: str, url: str, message: str, body: bytes, secrets: list[str]) -> Answer:
        """Send one request; secrets of the target are added to `secrets`, so that no error tells them."""
        config, now_s = self._config, int(time.time())
        given, key = await asyncio.to_thread(self._resolve)
        secrets += [value for name, value in given.items() if isinstance(config.headers[name], SecretRef)]
        headers = {
            "User-Agent": "knotwork",
            "Idempotency-Key": message,
            "webhook-id": message,
            "webhook-timestamp": str(now_s),
        }
        if body:
            headers["Content-Type"] = "application/json"
        if key:
            headers["webhook-signature"] = signature(key, message, now_s, body)
        own = {name.lower() for name in given}
        headers = {name: value for name, value in headers.items() if name.lower() not in own} | given
        return await answers.ask(
            self._client, method, url,
            who=self._who, timeout_s=config.request_timeout_s, headers=headers, content=body or None,
        )  # fmt: skip

    def _resolve(self) -> tuple[dict[str, str], str]:
        """Return the headers and the key to sign with. Blocks: secrets may be files or commands."""
        resolve, secret = self._context.secrets, self._config.secret
        given = {name: v if isinstance(v, str) else resolve(v) for name, v in self._config.headers.items()}
        return given, resolve(secret) if secret is not None else ""


def signature(key: str, message: str, now_s: int, body: bytes) -> str:
    """Return the value of `webhook-signature`; a key that begins with `whsec_` is base64, any other is taken as it is."""
    raw = key.encode()
    if key.startswith(SIGNED):
        try:
            raw = base64.b64decode(key.removeprefix(SIGNED), validate=True)
        except binascii.Error:
            raw = key.encode()
    signed = f"{message}.{now_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(raw, signed, hashlib.sha256).digest()).decode()


def _kept(answer: Answer, secrets: list[str]) -> dict[str, str | int]:
    """Return the short values of a JSON answer, without what it repeats of the secrets it was sent."""
    try:
        said = msgspec.json.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    kept: dict[str, str | int] = {}
    for name, value in said.items() if isinstance(said, dict) else ():
        fits = isinstance(value, str | int) and not isinstance(value, bool) and len(str(value)) <= KEPT_CHARS
        if fits and len(name) <= KEPT_CHARS and words.hide(str(value), secrets) == str(value) and len(kept) < KEPT_KEYS:
            kept[name] = value
    return kept


def _check_url(name: str, url: str, *, insecure: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = f"{name} must begin with https:// and name a host"
        raise ValueError(msg)
    if "{" in parts.netloc:
        msg = f"{name}: a launch may not choose the host"
        raise ValueError(msg)
    if parts.password:
        msg = f"{name} holds a password: write an Authorization header with a secret reference"
        raise ValueError(msg)
    if parts.scheme == "http" and not insecure and not _is_loopback(parts.hostname):
        msg = f"{name} must begin with https://, since credentials go through it (or mean it with insecure = true)"
        raise ValueError(msg)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def open_webhook(config: WebhookConfig, context: Context) -> AsyncIterator[SpinUp]:
    """Open a client; raises `Unavailable` when its certificates cannot be read."""
    client = await asyncio.to_thread(answers.client, verify=config.verify, ca_file=config.ca_file, base=context.base)
    async with client:
        yield Webhook(config, context, client)


FACTORY: Factory[SpinUp] = Factory(
    name="webhook",
    config=WebhookConfig,
    open=open_webhook,
    summary="Has something behind a URL start agents: one signed request with everything they need.",
    abilities=("probe", "stop"),
)
"""One URL that starts agents."""
