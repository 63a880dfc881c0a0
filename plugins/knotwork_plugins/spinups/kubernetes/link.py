"""How is a cluster's API asked? By kubernetes-asyncio, which knows kubeconfigs, tokens and clusters from within."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knotwork.sdk import Unavailable
from knotwork_plugins.spinups import answers, words
from knotwork_plugins.spinups.answers import ANSWER_MAX_BYTES, Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from knotwork_plugins.spinups.kubernetes.config import KubernetesConfig

WHO = "the cluster"
UNAUTHORIZED = 401
READ_BYTES = 65_536


class Link:
    """One client for one cluster, made when it is first needed and again when its credentials are no longer taken."""

    def __init__(self, config: KubernetesConfig, base: Path) -> None:
        """Keep what the client is made from; `base` is where relative paths start."""
        self._config = config
        self._kubeconfig = str(base / Path(config.kubeconfig).expanduser()) if config.kubeconfig else None
        self._client: Any = None
        self._making = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def ask(self, group: str, call: str, *arguments: Any, timeout_s: float = 0.0, **options: Any) -> Answer:
        """Call a method of one of the library's API classes, such as `BatchV1Api`, and return the bare answer.

        Raises `Unreachable`, `Unavailable`.
        """
        limit_s = timeout_s or self._config.request_timeout_s
        await asyncio.to_thread(_library)  # only the first time takes long, which is no fault of the cluster's
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._once(group, call, arguments, options)
                if answer.status == UNAUTHORIZED and self._client is not None:  # tokens expire: read them anew, once
                    await self.close()
                    answer = await self._once(group, call, arguments, options)
                return answer
        except TimeoutError as error:
            raise answers.silent(WHO, limit_s) from error

    async def _once(self, group: str, call: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Answer:
        import aiohttp

        library = _library()
        async with self._making:
            if self._client is None:
                self._client = await self._made(library)
        method: Callable[..., Any] = getattr(getattr(library.client, group)(self._client), call)
        try:
            # Not decoded by the library: it writes whole answers into its log, and refuses what it does not know.
            response = await method(*arguments, **options, _preload_content=False)
            try:
                body = await _read(response)
            finally:
                response.release()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise answers.unreachable(WHO, error, "Is the address in the kubeconfig right, and the VPN up?") from error
        return Answer(response.status, body, {name.lower(): value for name, value in response.headers.items()})

    async def _made(self, library: Any) -> Any:
        """Return a client; raises `Unavailable` (`launch.no_credentials`) when there is nothing to make it from."""
        config, loading = self._config, library.config
        settings = library.client.Configuration()
        inside = config.credentials == "in-cluster" or (
            config.credentials == "auto" and not config.kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ
        )
        try:
            if inside:
                loading.load_incluster_config(client_configuration=settings)
            else:
                file = self._kubeconfig
                await loading.load_kube_config(
                    config_file=file,
                    context=config.context or None,
                    client_configuration=settings,
                    persist_config=False,
                )
        except TimeoutError:
            raise
        except Exception as error:  # the library raises whatever a damaged file makes it stumble over
            what = (
                "the service account of this pod" if inside else f"the kubeconfig {config.kubeconfig or 'of this user'}"
            )
            raise Unavailable(
                f"{what} cannot be used: {words.hide(str(error) or type(error).__name__).rstrip('.')}.",
                code="launch.no_credentials",
                hint="Try it with kubectl; set `kubeconfig` and `context`, or `credentials`.",
            ) from error
        return library.client.ApiClient(settings)


def _library() -> Any:
    """Return the library. Importing it takes half a second, once, so not in the loop."""
    import kubernetes_asyncio.client
    import kubernetes_asyncio.config

    return kubernetes_asyncio


async def _read(response: Any) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_chunked(READ_BYTES):
        body += piece
        if len(body) > ANSWER_MAX_BYTES:
            raise Unavailable(
                f"{WHO} answered with more than {ANSWER_MAX_BYTES} bytes.",
                code="launch.bad_answer",
                hint="Is it really the right address?",
            )
    return bytes(body)
