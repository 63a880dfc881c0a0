"""What may be said of a target that is a Kubernetes cluster?"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from knotwork.sdk import PluginConfig
from knotwork_plugins.spinups.environment import Environment

DnsName = Annotated[str, StringConstraints(pattern="^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


Amount = Annotated[str, StringConstraints(pattern=r"^([0-9.]+([eE][0-9]+)?[a-zA-Z]{0,2})?$", max_length=32)]


class KubernetesConfig(PluginConfig):
    """Options of a target that is a Kubernetes cluster."""

    place_keys: ClassVar[tuple[str, ...]] = ("namespace", "kubeconfig", "context", "credentials")

    image: str = Field(min_length=1, max_length=1024, pattern=r"^[^\s]+$", description="image to run")
    namespace: DnsName = Field(default="default", max_length=63, description="namespace of the Jobs; it must exist")
    name_prefix: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9-]{0,30}$")] = Field(
        default="knotwork", description="what the names of the Jobs begin with"
    )
    command: tuple[str, ...] = Field(default=(), description="entry point; empty: the image's own")
    args: tuple[str, ...] = Field(default=(), description="arguments; empty: the image's own")
    env: Environment = Field(
        default_factory=dict,
        description="environment to add; secret references go into the launch's Secret, strings into the Job",
    )
    cpu: Amount = Field(default="", description='processors, asked for and the limit, e.g. "500m"; empty: not said')
    memory: Amount = Field(default="", description='memory, asked for and the limit, e.g. "1Gi"; empty: not said')
    pull: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        default="", description="when the image is pulled; empty: the cluster's choice"
    )
    pull_secret: str = Field(default="", max_length=253, description="Secret with the login to the image's registry")
    service_account: str = Field(
        default="", max_length=253, description="service account of the agent; empty: it gets no token of the cluster"
    )
    node_selector: dict[str, str] = Field(default_factory=dict, max_length=32, description="labels a machine must have")
    extra_labels: dict[str, str] = Field(default_factory=dict, max_length=32, description="further labels of the Job")
    ttl_s: int = Field(default=600, ge=0, le=2_592_000, description="seconds an ended Job is kept by the cluster")
    run_limit_s: int = Field(default=0, ge=0, le=31_536_000, description="seconds an agent may run; 0: no limit")
    kubeconfig: str = Field(default="", max_length=4096, description="kubeconfig; empty: KUBECONFIG, ~/.kube/config")
    context: str = Field(default="", max_length=1024, description="context in it; empty: the current one")
    credentials: Literal["auto", "kubeconfig", "in-cluster"] = Field(
        default="auto", description="how to prove who we are; auto: in a pod by its service account, else by kubeconfig"
    )
    request_timeout_s: float = Field(default=8.0, gt=0, le=300, description="seconds one request may take")
