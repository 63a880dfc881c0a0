"""How is an agent started in a container? By the Docker API on its Unix socket; Podman speaks it as well."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import math
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from knotwork.sdk import (
    Condition,
    Conflict,
    Context,
    Denied,
    Factory,
    KnotworkError,
    Launched,
    LaunchRequest,
    NotFound,
    SpinUp,
    TimedOut,
    Unavailable,
)
from knotwork_plugins.spinups import answers, environment, words
from knotwork_plugins.spinups.docker import speech
from knotwork_plugins.spinups.docker.config import DockerConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx

    from knotwork_plugins.spinups.answers import Answer

WHO = "Docker"
REMOVED_WITHIN_S = 30.0
PULL_WAIT_S = 60.0
LOOK_S = 0.1
GRACE_MAX_S = 3600.0
LABEL = "knotwork.launch"
HINTS = {
    401: "Set `registry_user` and `registry_password`.",
    403: "Give the registry's user the right to pull the image.",
    500: "Look at Docker's own log.",
}


class Docker:
    """The spin-up: one container per launch, named after it."""

    def __init__(
        self, config: DockerConfig, context: Context, client: httpx.AsyncClient, pulls: asyncio.TaskGroup
    ) -> None:
        """Keep the client and the group of pulls, which the opener closes."""
        self._pulls = pulls
        self._pulling: asyncio.Task[KnotworkError | None] | None = None
        self._config = config
        self._context = context
        self._client = client
        self._version = ""
        self._known = environment.Known()

    async def probe(self) -> None:
        """Raise when nobody answers on the socket, or the image is neither here nor to be pulled."""
        self._version = ""
        await self._greet()
        if self._config.pull == "never":
            answer = await self._ask("GET", f"/images/{self._config.image}/json")
            if not answer.good:
                raise self._refusal(answer, {404: "Pull it by hand, or set `pull`."})

    async def launch(self, request: LaunchRequest) -> Launched:
        """Create the container of this id, or find it, and start it; the image is pulled when that is called for."""
        config = self._config
        env = await environment.gathered(config.env, request, self._context.secrets)
        secrets = self._known.keep(request.id, env)
        name = words.name_of(config.name_prefix, request.id)
        if config.pull == "always" and await self._find(name, request) is None:
            await self._pull()
        container = await self._create(name, request, env, secrets)
        answer = await self._ask("POST", f"/containers/{container}/start")
        if answer.status not in (204, 304):
            with contextlib.suppress(KnotworkError):
                await self._remove(container)
            raise self._refusal(answer, {400: "Mend `command` or the image."}, secrets)
        return Launched({"id": container, "launch": request.id})

    async def condition(self, ref: Mapping[str, Any]) -> Condition:
        """Ask for the container; one that ended badly is told of with its last lines."""
        container = _container(ref)
        if not container:
            return Condition("gone", "there was no such launch")
        answer = await self._ask("GET", f"/containers/{container}/json")
        if answer.status == 404:  # noqa: PLR2004  not found
            return Condition("gone", "the container was removed")
        if not answer.good:
            raise self._refusal(answer)
        state, why = speech.state_of(answer.table(WHO))
        if state in ("gone", "failed"):
            why = words.ended(why, await self._output(container), self._known.of(words.text_in(ref, "launch")))
        return Condition(state, why)

    async def stop(self, ref: Mapping[str, Any], grace_s: float) -> None:
        """Stop the container and remove it; raises `TimedOut` when Docker does not get rid of it."""
        container = _container(ref)
        if not container:
            return
        whole_s = math.ceil(min(max(grace_s, 0.0), GRACE_MAX_S))
        answer = await self._ask("POST", f"/containers/{container}/stop?t={whole_s}", extra_s=whole_s + 10.0)
        if answer.status not in (204, 304, 404):
            self._context.log.warning("Docker answered %s when told to stop %s", answer.status, container)
        await self._remove(container)
        self._known.drop(words.text_in(ref, "launch"))

    def close(self) -> None:
        """Break off a pull."""
        if self._pulling is not None:
            self._pulling.cancel()

    async def _greet(self) -> None:
        """Learn which version of the API to speak."""
        answer = await self._ask("GET", "/_ping", greeting=True)
        if not answer.good:
            raise self._refusal(answer)
        self._version = speech.version(answer.headers.get("api-version", ""))

    async def _find(self, name: str, request: LaunchRequest) -> str | None:
        """Return the id of the container of this launch; raises `Conflict` when another one has its name."""
        answer = await self._ask("GET", f"/containers/{name}/json")
        if answer.status == 404:  # noqa: PLR2004  not found
            return None
        if not answer.good:
            raise self._refusal(answer)
        found = answer.table(WHO)
        labels = (found.get("Config") or {}).get("Labels") or {}
        if labels.get(LABEL) != request.id:
            raise Conflict(
                f"another container is called {name!r}.",
                code="launch.conflict",
                hint="Remove it, or set `name_prefix`.",
            )
        return str(found.get("Id", ""))

    async def _create(self, name: str, request: LaunchRequest, env: dict[str, str], secrets: list[str]) -> str:
        labels = {LABEL: request.id, **{f"knotwork.{key}": text for key, text in words.told(request).items()}}
        body = speech.container(self._config, env, labels)
        for try_again in (True, False):
            answer = await self._ask("POST", f"/containers/create?name={name}", json=body)
            if answer.status == 404 and try_again and self._config.pull == "missing":  # noqa: PLR2004  no such image
                await self._pull()
                continue
            if answer.status == 409 and (found := await self._find(name, request)):  # noqa: PLR2004  conflict
                return found
            break
        if not answer.good:
            raise self._refusal(
                answer, {404: "Is `image` right? It is not here, and `pull` forbids to pull it."}, secrets
            )
        container = answer.table(WHO).get("Id")
        if not isinstance(container, str) or not container:
            raise Unavailable("Docker created a container without an id.", code="launch.bad_answer", hint="Try again.")
        return container

    async def _pull(self) -> None:
        """Wait for the image; raises `Unavailable` (`launch.pulling`) when it takes long, and pulls on meanwhile."""
        if self._pulling is None or self._pulling.done():
            self._pulling = self._pulls.create_task(self._pulled())
        task = self._pulling
        await asyncio.wait([task], timeout=PULL_WAIT_S)
        if not task.done():
            raise Unavailable(
                f"the image {self._config.image!r} is still being pulled.",
                code="launch.pulling",
                hint="Try again; it goes on meanwhile.",
                retry_after_s=PULL_WAIT_S / 4,
            )
        if (error := task.result()) is not None:
            raise error

    async def _pulled(self) -> KnotworkError | None:
        """Pull the image and return what went wrong, which Docker tells within an answer whose status is 200."""
        config = self._config
        headers = {}
        image, tag = speech.image_and_tag(config.image)
        try:
            if config.registry_password is not None:
                password = await asyncio.to_thread(self._context.secrets, config.registry_password)
                login = msgspec.json.encode({"username": config.registry_user, "password": password})
                headers["X-Registry-Auth"] = base64.urlsafe_b64encode(login).decode()
            answer = await self._ask(
                "POST", "/images/create", params={"fromImage": image, "tag": tag}, headers=headers,
                extra_s=config.pull_timeout_s,
            )  # fmt: skip
        except KnotworkError as error:
            return error
        if not answer.good:
            return self._refusal(answer, {404: "Is `image` right?"})
        trouble = speech.trouble_of_pull(answer.body)
        return None if not trouble else NotFound(
            f"the image {config.image!r} cannot be pulled: {words.hide(trouble)[:500]}.",
            code="launch.no_image",
            hint="Is its name right, does the registry answer, and is a login needed (`registry_user`)?",
        )  # fmt: skip

    async def _output(self, container: str) -> bytes:
        """Return the last lines of a container, nothing when they cannot be had."""
        try:
            answer = await self._ask("GET", f"/containers/{container}/logs?stdout=1&stderr=1&tail={words.LINES_MAX}")
        except KnotworkError:
            return b""
        return speech.without_frames(answer.body) if answer.good else b""

    async def _remove(self, container: str) -> None:
        """Remove a container by force and wait until Docker no longer knows it."""
        try:
            async with asyncio.timeout(REMOVED_WITHIN_S):
                while True:
                    answer = await self._ask("DELETE", f"/containers/{container}?force=1&v=1", extra_s=REMOVED_WITHIN_S)
                    if answer.status == 404:  # noqa: PLR2004  not found
                        return
                    if not answer.good and answer.status != 409:  # noqa: PLR2004  being removed already
                        raise self._refusal(answer)
                    await asyncio.sleep(LOOK_S)
        except TimeoutError as error:
            raise TimedOut(
                f"Docker did not remove the container {container[:12]} within {REMOVED_WITHIN_S:g} s.",
                code="launch.will_not_end",
                hint="Look at Docker's own log; its storage may hang.",
            ) from error

    async def _ask(
        self, method: str, path: str, *, greeting: bool = False, extra_s: float = 0.0, **options: Any
    ) -> Answer:
        if not greeting and not self._version:
            await self._greet()
        try:
            return await answers.ask(
                self._client, method, f"http://docker{self._version}{path}",
                who=WHO, timeout_s=self._config.request_timeout_s + extra_s, **options,
            )  # fmt: skip
        except Unavailable as error:
            if error.code == "launch.unreachable":
                raise await asyncio.to_thread(self._why_not, error) from error
            raise

    def _why_not(self, error: KnotworkError) -> KnotworkError:
        """Say why there is no connection, where the file system knows."""
        import os

        socket = Path(self._config.socket)
        if socket.exists() and not os.access(socket, os.R_OK | os.W_OK):
            return Denied(
                f"this user may not use {socket}.",
                code="launch.denied",
                hint="Add the user to the group `docker` (whoever is in it can become root), or use rootless Docker.",
            )
        if not socket.exists():
            error.hint = f"There is no {socket}: start Docker, or set `socket`."
        return error

    def _refusal(
        self, answer: Answer, hints: Mapping[int, str] | None = None, secrets: list[str] | None = None
    ) -> KnotworkError:
        return answers.refusal(answer, WHO, {**HINTS, **(hints or {})}, secrets=secrets or ())


def _container(ref: Mapping[str, Any]) -> str:
    """Return the id in a ref, an empty text for anything that is none."""
    container = words.text_in(ref, "id")
    return container if container.isalnum() and container.isascii() else ""


@asynccontextmanager
async def open_docker(config: DockerConfig, context: Context) -> AsyncIterator[SpinUp]:
    """Open a client for the socket; it connects when it is first asked."""

    def make() -> httpx.AsyncClient:
        import httpx

        socket = str(context.base / Path(config.socket).expanduser())
        return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=socket), timeout=None, trust_env=False)  # noqa: S113  each request is bounded

    async with await asyncio.to_thread(make) as client:
        pulls = asyncio.TaskGroup()
        async with pulls:
            docker = Docker(config, context, client, pulls)
            try:
                yield docker
            finally:
                docker.close()


FACTORY: Factory[SpinUp] = Factory(
    name="docker",
    config=DockerConfig,
    open=open_docker,
    summary="Starts agents in containers of the local Docker.",
    abilities=("probe", "stop"),
)
"""One image for the local Docker."""
