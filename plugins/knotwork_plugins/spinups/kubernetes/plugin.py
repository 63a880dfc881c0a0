"""How is an agent started in a Kubernetes cluster? As a Job of one pod, with a Secret that goes with it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from knotwork.sdk import (
    Busy,
    Condition,
    Conflict,
    Context,
    Denied,
    Factory,
    KnotworkError,
    Launched,
    LaunchRequest,
    SpinUp,
    TimedOut,
    Unavailable,
)
from knotwork_plugins.spinups import answers, environment, words
from knotwork_plugins.spinups.kubernetes import manifest
from knotwork_plugins.spinups.kubernetes.config import KubernetesConfig
from knotwork_plugins.spinups.kubernetes.link import WHO, Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from knotwork_plugins.spinups.answers import Answer

LATER_S, KILLED_WITHIN_S = 15.0, 45.0
LOOK_MIN_S, LOOK_MAX_S = 0.1, 2.0
GRACE_MAX_S = 3600.0
FORBIDDEN, NOT_FOUND, CONFLICT = 403, 404, 409
PROBE = "knotwork-probe"


class Kubernetes:
    """The spin-up: one Job per launch, named after it."""

    def __init__(self, config: KubernetesConfig, context: Context, link: Link) -> None:
        """Keep the link, which the opener closes."""
        self._config = config
        self._context = context
        self._link = link
        self._known = environment.Known()

    async def probe(self) -> None:
        """Have the cluster check a Job without creating it, and each right that a launch needs."""
        body = manifest.job(self._config, _nobody(), PROBE)
        answer = await self._link.ask(
            "BatchV1Api", "create_namespaced_job", self._config.namespace, body, dry_run="All"
        )
        if not answer.good and answer.status != CONFLICT:
            raise self._refusal(answer)
        missing = [
            f"{verb} {resource}"
            for group, resource, verb in manifest.NEEDED
            if not await self._may(group, resource, verb)
        ]
        if missing:
            raise Denied(
                f"{WHO} does not let us {', '.join(missing)} in the namespace {self._config.namespace!r}.",
                code="launch.denied",
                hint=manifest.grants(self._config),
            )

    async def launch(self, request: LaunchRequest) -> Launched:
        """Create Job and Secret of this id, or go on with those that are there, and let the Job run."""
        config = self._config
        env = await environment.gathered(config.env, request, self._context.secrets)
        name = words.name_of(config.name_prefix, request.id)
        secrets = self._known.keep(name, env)
        job, ours = await self._job(name, request, secrets)
        uid = str((job.get("metadata") or {}).get("uid") or "")
        ref = {"name": name, "namespace": config.namespace, "uid": uid}
        if not (job.get("spec") or {}).get("suspend"):
            return Launched(ref)
        try:
            await self._secret(name, uid, env, secrets)
            answer = await self._link.ask(
                "BatchV1Api", "patch_namespaced_job", name, config.namespace, {"spec": {"suspend": False}},
                _content_type="application/merge-patch+json",
            )  # fmt: skip
            if not answer.good:
                raise self._refusal(answer, secrets)
        except KnotworkError:
            if ours:  # suspended for ever otherwise
                with contextlib.suppress(KnotworkError):
                    await self._delete_job(name, uid)
            raise
        return Launched(ref)

    async def condition(self, ref: Mapping[str, Any]) -> Condition:
        """Ask for the Job and its pods; one that failed is told of with its last lines."""
        name, uid = _names(ref)
        job = await self._find(name) if name else None
        if job is None or _uid(job) != uid:
            return Condition("gone", "there is no such Job any more")
        pods = await self._pods(name)
        found = manifest.condition(job, pods)
        if found.state == "failed" and pods:
            return Condition(
                "failed", words.ended(found.why, await self._output(manifest.names(pods)[-1:]), self._known.of(name))
            )
        return found

    async def stop(self, ref: Mapping[str, Any], grace_s: float) -> None:
        """Delete the pods with their grace, and the Job; raises `TimedOut` when even force does not do it."""
        name, uid = _names(ref)
        if not name:
            return
        grace_s = min(max(grace_s, 0.0), GRACE_MAX_S)
        job = await self._find(name)
        if job is not None and _uid(job) != uid:
            return  # another launch's
        await self._delete_pods(name, math.ceil(grace_s))
        if job is not None:
            await self._delete_job(name, uid)
        if not await self._gone(name, uid, grace_s + LATER_S):
            await self._delete_pods(name, 0)
            if not await self._gone(name, uid, KILLED_WITHIN_S):
                raise TimedOut(
                    f"the pods of the Job {name} do not go away.",
                    code="launch.will_not_end",
                    hint="Is the machine they run on lost? "
                    f"kubectl -n {self._config.namespace} delete pods -l {manifest.NAME_LABEL}={name} --force",
                )
        self._known.drop(name)
        # The cluster takes it away with the Job; sooner is better, since there are credentials in it.
        answer = await self._link.ask("CoreV1Api", "delete_namespaced_secret", name, self._config.namespace)
        if not answer.good and answer.status not in (NOT_FOUND, FORBIDDEN):
            raise self._refusal(answer)

    async def _job(self, name: str, request: LaunchRequest, secrets: list[str]) -> tuple[dict[str, Any], bool]:
        """Return the Job of a launch and whether it was created just now; raises `Conflict` when it is another's."""
        body = manifest.job(self._config, request, name)
        answer = await self._link.ask("BatchV1Api", "create_namespaced_job", self._config.namespace, body)
        if answer.good:
            return answer.table(WHO), True
        if answer.status != CONFLICT:
            raise self._refusal(answer, secrets)
        found = await self._find(name)
        metadata = (found or {}).get("metadata") or {}
        if found is None or metadata.get("deletionTimestamp"):
            raise Unavailable(f"the Job {name} is just being deleted.", code="launch.unavailable", hint="Try again.")
        if (metadata.get("annotations") or {}).get(manifest.LAUNCH) != request.id:
            raise Conflict(
                f"another Job is called {name!r}.", code="launch.conflict", hint="Delete it, or set `name_prefix`."
            )
        return found, False

    async def _secret(self, name: str, uid: str, env: dict[str, str], secrets: list[str]) -> None:
        body, namespace = manifest.secret(self._config, name, uid, env), self._config.namespace
        answer = await self._link.ask("CoreV1Api", "create_namespaced_secret", namespace, body)
        if answer.status == CONFLICT:  # of a try that was broken off
            answer = await self._link.ask("CoreV1Api", "replace_namespaced_secret", name, namespace, body)
        if not answer.good:
            raise self._refusal(answer, secrets)

    async def _find(self, name: str) -> dict[str, Any] | None:
        answer = await self._link.ask("BatchV1Api", "read_namespaced_job", name, self._config.namespace)
        if answer.status == NOT_FOUND:
            return None
        if not answer.good:
            raise self._refusal(answer)
        return answer.table(WHO)

    async def _pods(self, name: str) -> list[dict[str, Any]]:
        """Return the pods of a launch, none where they may not be seen."""
        selector = f"{manifest.NAME_LABEL}={name}"
        answer = await self._link.ask(
            "CoreV1Api", "list_namespaced_pod", self._config.namespace, label_selector=selector
        )
        if answer.status == FORBIDDEN:
            return []
        if not answer.good:
            raise self._refusal(answer)
        items = answer.table(WHO).get("items")
        return [pod for pod in items if isinstance(pod, dict)] if isinstance(items, list) else []

    async def _output(self, pods: list[str]) -> bytes:
        """Return the last lines of a pod, nothing when they cannot be had."""
        if not pods:
            return b""
        try:
            answer = await self._link.ask(
                "CoreV1Api", "read_namespaced_pod_log", pods[0], self._config.namespace,
                container=manifest.CONTAINER, tail_lines=words.LINES_MAX, limit_bytes=words.TAIL_BYTES,
            )  # fmt: skip
        except KnotworkError:
            return b""
        return answer.body if answer.good else b""

    async def _delete_pods(self, name: str, grace_s: int) -> None:
        for pod in manifest.names(await self._pods(name)):
            answer = await self._link.ask(
                "CoreV1Api", "delete_namespaced_pod", pod, self._config.namespace, grace_period_seconds=grace_s
            )
            if not answer.good and answer.status not in (NOT_FOUND, CONFLICT, FORBIDDEN):
                raise self._refusal(answer)

    async def _delete_job(self, name: str, uid: str) -> None:
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        answer = await self._link.ask("BatchV1Api", "delete_namespaced_job", name, self._config.namespace, body=options)
        if not answer.good and answer.status not in (NOT_FOUND, CONFLICT):
            raise self._refusal(answer)

    async def _gone(self, name: str, uid: str, within_s: float) -> bool:
        """Say whether the Job and its pods are gone within so many seconds."""
        until_s, pause_s = time.monotonic() + within_s, LOOK_MIN_S
        while True:
            job = await self._find(name)
            if (job is None or _uid(job) != uid) and not await self._pods(name):
                return True
            if time.monotonic() >= until_s:
                return False
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LOOK_MAX_S)

    async def _may(self, group: str, resource: str, verb: str) -> bool:
        """Say whether the cluster would let us; where it does not tell, it counts as yes."""
        wanted = {"namespace": self._config.namespace, "group": group, "resource": resource, "verb": verb}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        }
        answer = await self._link.ask("AuthorizationV1Api", "create_self_subject_access_review", body)
        return not answer.good or bool((answer.table(WHO).get("status") or {}).get("allowed"))

    def _refusal(self, answer: Answer, secrets: list[str] | None = None) -> KnotworkError:
        """Return what a refusal means, with what to do about it."""
        config, said = self._config, answer.said(secrets or ())
        if answer.status == FORBIDDEN and "exceeded quota" in said:
            return Busy(f"{WHO} has no room: {said}.", code="launch.busy", hint="Wait, or raise the ResourceQuota.")
        hints = {
            401: "The kubeconfig's credentials are not taken; log in again, then try it with kubectl.",
            403: manifest.grants(config),
            422: "Mend what the message names in the target's table.",
        }
        if answer.status == NOT_FOUND and "namespace" in said:
            hints[404] = f"Create it: kubectl create namespace {config.namespace}; or set `namespace`."
        return answers.refusal(answer, WHO, hints, secrets=secrets or (), now_s=time.time())


def _names(ref: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and uid in a ref; an empty name for what can be none."""
    name, uid = words.text_in(ref, "name"), words.text_in(ref, "uid")
    fits = bool(uid) and name.replace("-", "").isalnum() and name.isascii() and name == name.lower()
    return (name, uid) if fits else ("", "")


def _uid(thing: Mapping[str, Any]) -> str:
    return str((thing.get("metadata") or {}).get("uid") or "")


def _nobody() -> LaunchRequest:
    return LaunchRequest(id=PROBE, target="", project="", capability="", boundary="", task="", env={})


@asynccontextmanager
async def open_kubernetes(config: KubernetesConfig, context: Context) -> AsyncIterator[SpinUp]:
    """Open the spin-up; it reads credentials and connects when it is first asked."""
    link = Link(config, context.base)
    try:
        yield Kubernetes(config, context, link)
    finally:
        await link.close()


FACTORY: Factory[SpinUp] = Factory(
    name="kubernetes",
    config=KubernetesConfig,
    open=open_kubernetes,
    summary="Starts agents as Jobs in a Kubernetes cluster, their credentials in a Secret that goes with the Job.",
    abilities=("probe", "stop"),
)
"""One namespace of a cluster."""
