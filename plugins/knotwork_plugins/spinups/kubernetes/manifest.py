"""What is created in the cluster for a launch, and what does the cluster say of it? Pure: plain data in and out.

A Job is created suspended, then its Secret, which the Job owns and so takes with it, and only then it may run: so no pod
ever waits for a Secret, and none is left behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knotwork.sdk import Condition, SecretRef
from knotwork_plugins.spinups import words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knotwork.sdk import LaunchRequest
    from knotwork_plugins.spinups.kubernetes.config import KubernetesConfig

NAME_LABEL = "knotwork/launch-name"
LAUNCH = "knotwork/launch"
CONTAINER = "agent"
# Why a container waits when it will never do anything else.
_HOPELESS = frozenset({"InvalidImageName", "ErrImageNeverPull", "CreateContainerError", "RunContainerError"})
_WORKS = (
    ("batch", "jobs", ("create", "get", "patch", "delete")),
    ("", "secrets", ("create", "update", "delete")),
    ("", "pods", ("list", "delete")),
)
NEEDED = tuple((group, resource, verb) for group, resource, verbs in _WORKS for verb in verbs)
"""The rights that a launch and its end need, as (API group, resource, verb)."""


def labels_of(config: KubernetesConfig, name: str) -> dict[str, str]:
    """Return the labels of everything that belongs to a launch."""
    return {
        **config.extra_labels,
        "app.kubernetes.io/name": "knotwork-agent",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "knotwork",
        NAME_LABEL: name,
    }


def job(config: KubernetesConfig, request: LaunchRequest, name: str) -> dict[str, Any]:
    """Return the Job of a launch, suspended; nothing in it is secret."""
    labels = labels_of(config, name)
    told = {f"knotwork/{key}": text for key, text in words.told(request).items()}  # as annotations: any text will do
    spec: dict[str, Any] = {
        "suspend": True,
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": config.ttl_s,
        "template": {"metadata": {"labels": labels, "annotations": told}, "spec": _pod(config, name)},
    }
    if config.run_limit_s:
        spec["activeDeadlineSeconds"] = config.run_limit_s
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": config.namespace, "labels": labels, "annotations": told},
        "spec": spec,
    }


def _pod(config: KubernetesConfig, name: str) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": config.image,
        "env": [{"name": key, "value": value} for key, value in config.env.items() if isinstance(value, str)],
        "envFrom": [{"secretRef": {"name": name}}],
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    amounts = {key: value for key, value in (("cpu", config.cpu), ("memory", config.memory)) if value}
    optional: dict[str, Any] = {
        "command": list(config.command),
        "args": list(config.args),
        "resources": {"requests": amounts, "limits": amounts} if amounts else None,
        "imagePullPolicy": config.pull,
    }
    container |= {key: value for key, value in optional.items() if value}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        # an agent runs what it is told to: it gets no rights in the cluster that nobody gave it on purpose
        "automountServiceAccountToken": bool(config.service_account),
        "containers": [container],
    }
    optional = {
        "serviceAccountName": config.service_account,
        "imagePullSecrets": [{"name": config.pull_secret}] if config.pull_secret else None,
        "nodeSelector": dict(config.node_selector),
    }
    return pod | {key: value for key, value in optional.items() if value}


def secret(config: KubernetesConfig, name: str, owner_uid: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Return the Secret of a launch, owned by its Job: all variables but the plain ones of the target."""
    plain = {key for key, value in config.env.items() if not isinstance(value, SecretRef)}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": owner_uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": name,
            "namespace": config.namespace,
            "labels": labels_of(config, name),
            "ownerReferences": [{**owner, "controller": False, "blockOwnerDeletion": False}],
        },
        "stringData": {key: value for key, value in env.items() if key not in plain or key.startswith("KNOTWORK_")},
    }


def condition(found: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Condition:
    """Return how a launch is, from its Job and the Job's pods."""
    marks = {one.get("type"): one for one in (found.get("status") or {}).get("conditions") or () if _true(one)}
    phases = {(pod.get("status") or {}).get("phase"): _name(pod) for pod in pods}
    if "Complete" in marks:
        return Condition("gone", "the Job is complete")
    if "Failed" in marks or "Failed" in phases:
        return Condition("failed", _failure(marks.get("Failed", {}), pods))
    if (found.get("metadata") or {}).get("deletionTimestamp"):
        return Condition("running", "the Job is being deleted")
    if (found.get("spec") or {}).get("suspend"):
        return Condition("starting", "the Job is suspended")
    return Condition("running", f"pod {phases['Running']}") if "Running" in phases else _waiting(pods)


def _true(one: Mapping[str, Any]) -> bool:
    return one.get("status") == "True"


def _waiting(pods: Sequence[Mapping[str, Any]]) -> Condition:
    for pod in pods:
        for reason, message in _reasons(pod):
            why = f"{reason}: {message}" if message else reason
            return Condition("failed" if reason in _HOPELESS else "starting", words.last_words(why.encode()))
    return Condition("starting", "no pod yet" if not pods else "the pod is pending")


def _reasons(pod: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return why a pod does not run yet: what its container waits for, or that no node takes it."""
    status = pod.get("status") or {}
    found = [(one.get("state") or {}).get("waiting") or {} for one in status.get("containerStatuses") or ()]
    found += [one for one in status.get("conditions") or () if one.get("status") == "False"]
    plain = ("ContainerCreating", "PodInitializing", "ContainersNotReady", "ContainersNotInitialized")
    return [
        (str(one["reason"]), str(one.get("message") or "")) for one in found if one.get("reason") not in (None, *plain)
    ]


def _failure(job_condition: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
    for pod in pods:
        for one in (pod.get("status") or {}).get("containerStatuses") or ():
            if ended := (one.get("state") or {}).get("terminated"):
                reason = ended.get("reason") or "Error"
                return f"it ended with exit code {ended.get('exitCode')} ({reason})"
        if reason := (pod.get("status") or {}).get("reason"):
            return f"{reason}: {(pod.get('status') or {}).get('message') or 'no message'}"[:300]
    return f"{job_condition.get('reason') or 'the pod failed'}: {job_condition.get('message') or 'no message'}"[:300]


def _name(thing: Mapping[str, Any]) -> str:
    return str((thing.get("metadata") or {}).get("name") or "")


def names(pods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the pods."""
    return [name for pod in pods if (name := _name(pod))]


def grants(config: KubernetesConfig) -> str:
    """Return the commands that give a user or service account what it needs."""
    verbs = ",".join(sorted({verb for _, _, verb in NEEDED}))
    return (
        f"Somebody who may can grant it: kubectl -n {config.namespace} create role knotwork --verb={verbs} "
        f"--resource=jobs.batch,secrets,pods,pods/log; then bind it with kubectl -n {config.namespace} create rolebinding "
        "knotwork --role=knotwork --user=NAME (or --serviceaccount=NAMESPACE:NAME)."
    )
