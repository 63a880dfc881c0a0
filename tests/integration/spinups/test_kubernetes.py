"""Agents as Jobs: what is asked of the cluster, and what is made of its answers. The API server is a stand-in."""

import ipaddress
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from knotwork.sdk import (
    Busy,
    Condition,
    Conflict,
    Denied,
    Invalid,
    LaunchRequest,
    NotFound,
    SpinUp,
    TimedOut,
    Unavailable,
    Unreachable,
)
from knotwork.sdk.testing import host, make_context
from knotwork_plugins.spinups.kubernetes import manifest, plugin
from knotwork_plugins.spinups.kubernetes.config import KubernetesConfig
from knotwork_plugins.spinups.kubernetes.plugin import FACTORY

pytestmark = pytest.mark.timeout(120)


def request(launch: str = "launch-1") -> LaunchRequest:
    env = {"KNOTWORK_TOKEN": "hush-hush-7", "KNOTWORK_URL": "nats://10.0.0.1:4222"}
    return LaunchRequest(launch, "k8s", "default", "review", "personal", "task_1", env)


@pytest.fixture
def table(cluster: Any, tmp_path: Path) -> dict[str, Any]:
    return {"image": "agent:1", "kubeconfig": str(cluster.kubeconfig(tmp_path / "kubeconfig")), "request_timeout_s": 30}


@asynccontextmanager
async def opened(table: dict[str, Any], **given: Any) -> AsyncIterator[SpinUp]:
    async with host(FACTORY, {**table, **given}, start_timeout_s=40) as spinup:
        yield spinup


@asynccontextmanager
async def unasked(table: dict[str, Any], **given: Any) -> AsyncIterator[SpinUp]:
    """Open it without a probe."""
    context = make_context()
    async with FACTORY.open(FACTORY.config(**{**table, **given}), context) as spinup:
        yield spinup
    shutil.rmtree(context.folder)


async def test_what_is_sent(cluster, table, monkeypatch):
    monkeypatch.setenv("API_KEY", "the key")
    given: dict[str, Any] = {
        "namespace": "agents", "command": ["agent"], "args": ["--now"], "cpu": "500m", "memory": "1Gi", "pull": "Always",
        "env": {"PLAIN": "x", "KEY": {"env": "API_KEY"}}, "pull_secret": "login", "service_account": "agent",
        "node_selector": {"disk": "ssd"}, "extra_labels": {"team": "a"}, "ttl_s": 60, "run_limit_s": 3600,
    }  # fmt: skip
    async with opened(table, **given) as spinup:
        cluster.asked.clear()
        launched = await spinup.launch(request())
    path = "/apis/batch/v1/namespaces/agents/jobs"
    assert [(one.method, one.path) for one in cluster.asked] == [
        ("POST", path), ("POST", "/api/v1/namespaces/agents/secrets"), ("PATCH", f"{path}/knotwork-launch-1"),
    ]  # fmt: skip
    create, secret, patch = (one.json for one in cluster.asked)
    labels = {
        "app.kubernetes.io/name": "knotwork-agent", "app.kubernetes.io/instance": "knotwork-launch-1",
        "app.kubernetes.io/managed-by": "knotwork", "knotwork/launch-name": "knotwork-launch-1", "team": "a",
    }  # fmt: skip
    told = {
        "knotwork/launch": "launch-1", "knotwork/target": "k8s", "knotwork/project": "default",
        "knotwork/capability": "review", "knotwork/boundary": "personal", "knotwork/task": "task_1",
    }  # fmt: skip
    amounts = {"cpu": "500m", "memory": "1Gi"}
    container = {
        "name": "agent", "image": "agent:1", "command": ["agent"], "args": ["--now"], "imagePullPolicy": "Always",
        "env": [{"name": "PLAIN", "value": "x"}], "envFrom": [{"secretRef": {"name": "knotwork-launch-1"}}],
        "resources": {"requests": amounts, "limits": amounts}, "securityContext": {"allowPrivilegeEscalation": False},
    }  # fmt: skip
    pod = {
        "restartPolicy": "Never", "automountServiceAccountToken": True, "serviceAccountName": "agent",
        "imagePullSecrets": [{"name": "login"}], "nodeSelector": {"disk": "ssd"}, "containers": [container],
    }  # fmt: skip
    assert create == {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "knotwork-launch-1", "namespace": "agents", "labels": labels, "annotations": told},
        "spec": {
            "suspend": True, "completions": 1, "parallelism": 1, "backoffLimit": 0, "ttlSecondsAfterFinished": 60,
            "activeDeadlineSeconds": 3600,
            "template": {"metadata": {"labels": labels, "annotations": told}, "spec": pod},
        },
    }  # fmt: skip
    assert secret["stringData"] == {
        "KEY": "the key", "KNOTWORK_TOKEN": "hush-hush-7", "KNOTWORK_URL": "nats://10.0.0.1:4222",
        "KNOTWORK_LAUNCH": "launch-1",
    }  # fmt: skip
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "knotwork-launch-1", "uid": launched.ref["uid"]}
    assert secret["metadata"]["ownerReferences"] == [{**owner, "controller": False, "blockOwnerDeletion": False}]
    assert patch == {"spec": {"suspend": False}}
    assert cluster.asked[2].headers["content-type"] == "application/merge-patch+json"
    assert b"hush" not in cluster.asked[0].body


async def test_a_probe_creates_nothing_and_proves_every_right(cluster, table):
    async with opened(table):
        pass
    (create,) = cluster.asks("POST", "/jobs$")
    assert create.query == {"dryRun": "All"}
    assert (cluster.jobs, cluster.secrets) == ({}, {})
    wanted = [one.json["spec"]["resourceAttributes"] for one in cluster.asks("POST", "accessreviews$")]
    assert [(one["group"], one["resource"], one["verb"]) for one in wanted] == [*manifest.NEEDED]
    assert {one["namespace"] for one in wanted} == {"default"}


async def test_missing_rights_are_named_with_how_to_grant_them(cluster, table):
    cluster.forbidden = {("create", "secrets"), ("delete", "pods")}
    async with unasked(table) as spinup:
        with pytest.raises(Denied, match=r"create secrets, delete pods in the namespace 'default'") as refused:
            await spinup.probe()
        assert "kubectl -n default create role knotwork" in refused.value.hint
        with pytest.raises(Denied, match="cannot create resource") as refused:
            await spinup.launch(request())
        assert "kubectl -n default create role knotwork" in refused.value.hint
    assert cluster.jobs == {}, "a Job is left suspended for ever"


async def test_a_namespace_that_does_not_exist(cluster, table):
    async with unasked(table, namespace="nope") as spinup:
        for asked in (spinup.probe(), spinup.launch(request())):
            with pytest.raises(NotFound, match='namespaces "nope" not found') as refused:
                await asked
            assert "kubectl create namespace nope" in refused.value.hint


async def test_a_launch_that_broke_off_is_gone_on_with(cluster, table):
    """The node died after the Job, and after the Secret: the same Job is used, and let run once."""
    async with opened(table) as spinup:
        for broken in (("POST", "/secrets$"), ("PATCH", "/jobs/")):
            cluster.fault(*broken, raw=b"\0")
            cluster.fault("DELETE", "/jobs/", raw=b"\0")  # as if nobody were there to clear up
            with pytest.raises(Unreachable):
                await spinup.launch(request())
            assert [job["spec"]["suspend"] for job in cluster.jobs.values()] == [True]
            assert not cluster.pods
        launched = await spinup.launch(request())
        assert await spinup.launch(request()) == launched
        assert (len(cluster.jobs), len(cluster.secrets), len(cluster.pods)) == (1, 1, 1)
        assert (await spinup.condition(launched.ref)).state == "running"


async def test_a_job_of_somebody_else_is_left_alone(cluster, table):
    async with opened(table) as spinup:
        launched = await spinup.launch(request())
        job = cluster.jobs["knotwork-launch-1"]
        job["metadata"]["annotations"]["knotwork/launch"] = "another"
        with pytest.raises(Conflict):
            await spinup.launch(request())
        job["metadata"]["uid"] = "of another one"
        assert (await spinup.condition(launched.ref)).state == "gone"
        await spinup.stop(launched.ref, 0.0)
        assert cluster.jobs
        job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        with pytest.raises(Unavailable, match="being deleted"):
            await spinup.launch(request())


async def test_stop_is_gentle_and_leaves_nothing(cluster, table):
    async with opened(table) as spinup:
        launched = await spinup.launch(request())
        await spinup.stop(launched.ref, 2.3)
    (pod,) = cluster.asks("DELETE", "/pods/")
    assert pod.query == {"gracePeriodSeconds": "3"}
    (job,) = cluster.asks("DELETE", "/jobs/")
    assert job.json == {"propagationPolicy": "Foreground", "preconditions": {"uid": launched.ref["uid"]}}
    assert (cluster.jobs, cluster.secrets, cluster.pods) == ({}, {}, {})


async def test_a_pod_that_does_not_go_is_forced(cluster, table, monkeypatch):
    monkeypatch.setattr(plugin, "LATER_S", 0.3)
    cluster.stubborn = True
    async with opened(table) as spinup:
        launched = await spinup.launch(request())
        await spinup.stop(launched.ref, 0.1)
    assert [pod.query["gracePeriodSeconds"] for pod in cluster.asks("DELETE", "/pods/")] == ["1", "0"]
    assert (cluster.jobs, cluster.secrets, cluster.pods) == ({}, {}, {})


async def test_a_pod_on_a_lost_machine_is_told_of(cluster, table, monkeypatch):
    monkeypatch.setattr(plugin, "LATER_S", 0.2)
    monkeypatch.setattr(plugin, "KILLED_WITHIN_S", 0.2)
    cluster.stuck = True
    async with opened(table) as spinup:
        launched = await spinup.launch(request())
        with pytest.raises(TimedOut, match="delete pods -l knotwork/launch-name=knotwork-launch-1 --force"):
            await spinup.stop(launched.ref, 0.0)


async def test_without_the_right_to_see_pods_it_still_ends(cluster, table):
    async with opened(table) as spinup:
        launched = await spinup.launch(request())
        cluster.forbidden = {("list", "pods"), ("delete", "pods"), ("delete", "secrets")}
        await spinup.stop(launched.ref, 1.0)
        assert (await spinup.condition(launched.ref)).state == "gone"
    assert (cluster.jobs, cluster.secrets, cluster.pods) == ({}, {}, {})


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return pod(phase="Pending", containerStatuses=[{"state": {"waiting": {"reason": reason, "message": message}}}])


FAILED = {
    "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "m"}]}
}
NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}


@pytest.mark.parametrize(("job", "pods", "expected"), [
    ({"spec": {"suspend": True}}, [], Condition("starting", "the Job is suspended")),
    ({}, [], Condition("starting", "no pod yet")),
    ({}, [pod(phase="Pending")], Condition("starting", "the pod is pending")),
    ({}, [waits("ContainerCreating")], Condition("starting", "the pod is pending")),
    ({}, [waits("ImagePullBackOff", "Back-off pulling image")], Condition("starting", "ImagePullBackOff: Back-off pulling image")),
    ({}, [waits("InvalidImageName")], Condition("failed", "InvalidImageName")),
    ({}, [pod(phase="Pending", conditions=[NO_NODE])], Condition("starting", "Unschedulable: 0/3 nodes are available")),
    ({}, [pod(phase="Running")], Condition("running", "pod p")),
    ({"metadata": {"deletionTimestamp": "x"}}, [pod(phase="Running")], Condition("running", "the Job is being deleted")),
    ({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, [], Condition("gone", "the Job is complete")),
    (FAILED, [], Condition("failed", "DeadlineExceeded: m")),
    (
        {}, [pod(phase="Failed", containerStatuses=[{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}])],
        Condition("failed", "it ended with exit code 137 (OOMKilled)"),
    ),
    ({}, [pod(phase="Failed", reason="Evicted", message="disk")], Condition("failed", "Evicted: disk")),
    ({"status": {"conditions": None}, "spec": None}, [{"status": None}], Condition("starting", "the pod is pending")),
])  # fmt: skip
def test_each_state_of_a_job(job, pods, expected):
    assert manifest.condition(job, pods) == expected


async def test_one_that_failed_is_told_of_with_its_last_lines(cluster, table):
    cluster.pod_status = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}
    cluster.job_conditions = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]
    cluster.log = b"hello\nhush-hush-7\n"
    async with opened(table) as spinup:
        launched = await spinup.launch(request())
        condition = await spinup.condition(launched.ref)
        assert condition == Condition("failed", "it ended with exit code 3 (Error); its last lines:\nhello\n[hidden]")
        (log,) = cluster.asks("GET", "/log$")
        assert log.query == {"container": "agent", "tailLines": "20", "limitBytes": "8192"}


@pytest.mark.parametrize(("status", "error", "code"), [
    (400, Invalid, "launch.refused"), (401, Denied, "launch.denied"), (404, NotFound, "launch.not_found"),
    (422, Invalid, "launch.refused"), (429, Busy, "launch.busy"), (500, Unavailable, "launch.unavailable"),
    (504, Unavailable, "launch.unavailable"),
])  # fmt: skip
async def test_each_refusal_has_its_error(cluster, table, status, error, code):
    body = {"kind": "Status", "status": "Failure", "message": "the reason: hush-hush-7", "code": status}
    cluster.fault("POST", "/secrets$", status=status, body=body, headers={"Retry-After": "7"}, times=2)
    async with opened(table) as spinup:
        with pytest.raises(error, match="the reason") as refused:
            await spinup.launch(request())
    assert (type(refused.value), refused.value.code) == (error, code)
    assert "hush" not in str(refused.value)
    assert refused.value.retry_after_s == (7.0 if issubclass(error, Unavailable) else None)
    assert cluster.jobs == {}


async def test_a_full_quota_is_for_later(cluster, table):
    said = 'jobs.batch "x" is forbidden: exceeded quota: agents, requested: count/jobs.batch=1, used: 5, limited: 5'
    cluster.fault("POST", "/jobs$", status=403, body={"message": said})
    async with unasked(table) as spinup:
        with pytest.raises(Busy, match="exceeded quota"):
            await spinup.launch(request())


async def test_silence_is_for_later(cluster, table):
    cluster.fault("POST", "/jobs$", hang=True)
    async with unasked(table, request_timeout_s=1.0) as spinup:
        with pytest.raises(Unavailable, match="within 1 s") as silent:
            await spinup.launch(request())
    assert silent.value.code == "launch.no_answer"


async def test_garbage_is_for_later(cluster, table):
    async with opened(table) as spinup:
        cluster.fault("POST", "/jobs$", status=201, body=b"<html>a proxy</html>")
        with pytest.raises(Unavailable) as odd:
            await spinup.launch(request())
        assert odd.value.code == "launch.bad_answer"
        cluster.fault("POST", "/jobs$", raw=b"no HTTP at all\r\n\r\n")
        with pytest.raises(Unreachable):
            await spinup.launch(request())
        cluster.close()
        with pytest.raises(Unreachable) as away:
            await spinup.condition({"name": "a", "uid": "b"})
        assert away.value.code == "launch.unreachable"


async def test_credentials_that_expired_are_read_anew(cluster, table, tmp_path):
    async with opened(table) as spinup:
        cluster.token = "the-next-token"
        with pytest.raises(Denied, match="401"):
            await spinup.launch(request())
        file = tmp_path / "kubeconfig"
        file.write_text(file.read_text().replace("the-token-of-the-kubeconfig", cluster.token))
        launched = await spinup.launch(request())
        assert (await spinup.condition(launched.ref)).state == "running"


async def test_a_program_that_fetches_credentials_is_asked(cluster, table, tmp_path):
    program = tmp_path / "login.py"
    token = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"the-token-of-the-kubeconfig"}}'
    program.write_text(f"print('''{token}''')")
    call = f"{{apiVersion: client.authentication.k8s.io/v1, command: {sys.executable}, args: ['{program}']}}"
    file = tmp_path / "kubeconfig"
    file.write_text(file.read_text().replace("{token: the-token-of-the-kubeconfig}", f"{{exec: {call}}}"))
    async with opened(table) as spinup:
        await spinup.launch(request())
    assert len(cluster.jobs) == 1


@pytest.mark.parametrize(
    "text", ["", "no: config", "[", "current-context: test\ncontexts: []\nclusters: []\nusers: []\n", None]
)
async def test_a_kubeconfig_that_is_none(table, tmp_path, text):
    file = tmp_path / "kubeconfig"
    file.unlink()
    if text is not None:
        file.write_text(text)
    async with unasked(table) as spinup:
        with pytest.raises(Unavailable) as refused:
            await spinup.probe()
    assert refused.value.code == "launch.no_credentials"
    assert "kubectl" in refused.value.hint


async def test_in_a_cluster_there_must_be_a_service_account(table, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    async with unasked(table, credentials="in-cluster") as spinup:
        with pytest.raises(Unavailable, match="service account of this pod") as refused:
            await spinup.probe()
    assert refused.value.code == "launch.no_credentials"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Return the files of a self-signed certificate for 127.0.0.1 and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


async def test_the_cluster_must_prove_who_it_is(cluster, table, tmp_path):
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    cluster.speak_tls(context)
    file = tmp_path / "kubeconfig"
    plain = file.read_text().replace("http://", "https://")
    file.write_text(plain)
    async with unasked(table) as spinup:
        with pytest.raises(Unreachable, match="certificate"):
            await spinup.probe()
    file.write_text(plain.replace("cluster: {server", f"cluster: {{certificate-authority: {cert}, server"))
    async with opened(table) as spinup:
        await spinup.launch(request())
    assert len(cluster.jobs) == 1


def test_an_id_that_is_no_name_of_a_job_gets_its_digest():
    config = KubernetesConfig(image="a")
    names = [manifest.words.name_of(config.name_prefix, launch) for launch in ("a_b", "a-b", "A-b", "x" * 100, "ü")]
    assert names[1] == "knotwork-a-b"
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 and name.replace("-", "").isalnum() and name == name.lower() for name in names)
