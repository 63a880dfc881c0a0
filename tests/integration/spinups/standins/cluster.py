"""A stand-in for the API server of Kubernetes: as much as a Job with its Secret and pods needs, with its real errors."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

from speaking import Asked, Reply, Speaking

JOBS = r"/apis/batch/v1/namespaces/([^/]+)/jobs(?:/([^/]+))?"
CORE = r"/api/v1/namespaces/([^/]+)/(secrets|pods)(?:/([^/]+))?(?:/(log))?"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
TOKEN = "the-token-of-the-kubeconfig"


def status(code: int, reason: str, message: str) -> Reply:
    return code, {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }  # fmt: skip


class Cluster(Speaking):
    """`forbidden` are (verb, resource) this user may not; pods of `stubborn` jobs go by force alone, of `stuck` never."""

    def __init__(self) -> None:
        self.namespaces = {"default", "agents"}
        self.forbidden: set[tuple[str, str]] = set()
        self.token = TOKEN
        self.jobs: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.stubborn = self.stuck = False
        self.pod_status: dict[str, Any] = {"phase": "Running"}
        self.job_conditions: list[dict[str, Any]] = []
        self.log = b"hello\nno such agent\n"
        super().__init__()

    def kubeconfig(self, file: Path) -> Path:
        file.write_text(
            f"apiVersion: v1\nkind: Config\ncurrent-context: test\n"
            f"clusters: [{{name: test, cluster: {{server: '{self.url}'}}}}]\n"
            f"users: [{{name: me, user: {{token: {TOKEN}}}}}]\n"
            "contexts: [{name: test, context: {cluster: test, user: me}}]\n"
        )
        return file

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return status(401, "Unauthorized", "Unauthorized")
        if asked.path == REVIEWS:
            wanted = asked.json["spec"]["resourceAttributes"]
            allowed = (wanted["verb"], wanted["resource"]) not in self.forbidden
            return 201, {"kind": "SelfSubjectAccessReview", "spec": asked.json["spec"], "status": {"allowed": allowed}}
        if found := re.fullmatch(JOBS, asked.path):
            return self._refused(asked, found[1], "jobs", "batch") or self._jobs(asked, found[2] or "")
        if found := re.fullmatch(CORE, asked.path):
            refused = self._refused(asked, found[1], found[2], "")
            if refused:
                return refused
            return self._secrets(asked, found[3] or "") if found[2] == "secrets" else self._pods(asked, found[3] or "")
        return status(404, "NotFound", "the server could not find the requested resource")

    def _refused(self, asked: Asked, namespace: str, resource: str, group: str) -> Reply | None:
        verb = {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}[asked.method]
        if resource == "pods" and asked.method == "GET" and asked.path.endswith("pods"):
            verb = "list"
        if (verb, resource) in self.forbidden:
            full = f"{resource}.{group}" if group else resource
            return status(
                403, "Forbidden",
                f'{full} is forbidden: User "me" cannot {verb} resource "{resource}" in API group "{group}" '
                f'in the namespace "{namespace}"',
            )  # fmt: skip
        if namespace not in self.namespaces and asked.method == "POST":
            return status(404, "NotFound", f'namespaces "{namespace}" not found')
        return None

    def _jobs(self, asked: Asked, name: str) -> Reply:
        if asked.method == "POST":
            job = asked.json
            name = job["metadata"]["name"]
            if name in self.jobs:
                return status(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
            job["metadata"]["uid"] = str(uuid.uuid4())
            job["status"] = {}
            if asked.query.get("dryRun") != "All":
                self.jobs[name] = job
            return 201, job
        job = self.jobs.get(name)
        if job is None:
            return status(404, "NotFound", f'jobs.batch "{name}" not found')
        if asked.method == "PATCH":
            job["spec"] |= asked.json["spec"]
            if not job["spec"]["suspend"] and not any(self._of(pod, name) for pod in self.pods.values()):
                self._start(job, name)
        elif asked.method == "DELETE":
            wanted = asked.json
            if wanted["preconditions"]["uid"] != job["metadata"]["uid"]:
                return status(409, "Conflict", "Precondition failed: UID in precondition")
            assert wanted["propagationPolicy"] == "Foreground"
            job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            if not self.stubborn and not self.stuck:
                self.pods = {key: pod for key, pod in self.pods.items() if not self._of(pod, name)}
            self._collect()
        return 200, job

    def _start(self, job: dict[str, Any], name: str) -> None:
        wanted = job["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"]
        assert wanted in self.secrets, "the pod would wait for its Secret"
        pod = f"{name}-{uuid.uuid4().hex[:5]}"
        self.pods[pod] = {
            "metadata": {"name": pod, "labels": job["spec"]["template"]["metadata"]["labels"]},
            "status": self.pod_status,
        }
        job["status"]["conditions"] = self.job_conditions

    def _of(self, pod: dict[str, Any], name: str) -> bool:
        return pod["metadata"]["labels"]["knotwork/launch-name"] == name

    def _collect(self) -> None:
        """Do what the garbage collector does: a Job goes after its pods, a Secret after its Job."""
        for name, job in [*self.jobs.items()]:
            if job["metadata"].get("deletionTimestamp") and not any(self._of(pod, name) for pod in self.pods.values()):
                del self.jobs[name]
        alive = {job["metadata"]["uid"] for job in self.jobs.values()}
        for name, secret in [*self.secrets.items()]:
            if secret["metadata"]["ownerReferences"][0]["uid"] not in alive:
                del self.secrets[name]

    def _secrets(self, asked: Asked, name: str) -> Reply:
        if asked.method in ("POST", "PUT"):
            secret = asked.json
            name = secret["metadata"]["name"]
            if name in self.secrets and asked.method == "POST":
                return status(409, "AlreadyExists", f'secrets "{name}" already exists')
            self.secrets[name] = secret
            return 201, secret
        if name not in self.secrets:
            return status(404, "NotFound", f'secrets "{name}" not found')
        return 200, self.secrets.pop(name)

    def _pods(self, asked: Asked, name: str) -> Reply:
        if asked.path.endswith("/log"):
            return 200, self.log, {"Content-Type": "text/plain"}
        if not name:
            wanted = asked.query["labelSelector"].removeprefix("knotwork/launch-name=")
            return 200, {"kind": "PodList", "items": [pod for pod in self.pods.values() if self._of(pod, wanted)]}
        if name not in self.pods:
            return status(404, "NotFound", f'pods "{name}" not found')
        pod = self.pods[name]
        if not self.stuck and (not self.stubborn or asked.query.get("gracePeriodSeconds") == "0"):
            del self.pods[name]
            self._collect()
        return 200, pod
