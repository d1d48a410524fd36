"""The cluster that a JobSet runs on, and what it asks for to get the machine that a preset needs."""

import re
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# GKE's name of the accelerator and chips of a host in a slice of several hosts.
GENERATIONS = {"v5e": ("tpu-v5-lite-podslice", 4), "v6e": ("tpu-v6e-slice", 4)}
# Slices that GKE offers for both generations; up to 8 chips are one host.
TOPOLOGIES = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
ONE_HOST = 8
NAME = r"[a-z]([-a-z0-9]*[a-z0-9])?"  # what Kubernetes calls a DNS label
LONGEST = 30  # a pod's name adds slice, number and a random end to it and to the run's digest, and has 63 letters


class JobSetConfig(BaseModel):
    """Where the pods of a slice run, and how they see the run's files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = Field(min_length=1, description="Container image with this version of the program and the tpu extra.")
    namespace: str = Field(default="default", pattern=f"^{NAME}$", description="Kubernetes namespace.")
    service_account: str = Field(
        default="default", description="Kubernetes service account of the pods; it reads and writes the volume."
    )
    name: str = Field(
        default="nestling", pattern=f"^{NAME}$", max_length=LONGEST, description="First part of the JobSets' names."
    )
    volume: str = Field(
        pattern=r"^(gs://[a-z0-9][-_.a-z0-9]+|[a-z0-9][-.a-z0-9]*)$",
        description="What holds the store: gs://BUCKET (by GCS FUSE) or the name of a PersistentVolumeClaim.",
    )
    mount: str = Field(
        pattern=r"^/[^:]*[^/:]$", description="Where the volume is in every pod, that of the flow included."
    )
    spot: bool = Field(default=True, description="Spot machines: cheaper, and taken away at any time.")
    priority_class: str = Field(default="", description="PriorityClass of the pods, if any.")
    queue: str = Field(default="", description="Kueue's LocalQueue, if the cluster has one.")
    grace_s: int = Field(default=120, ge=1, description="Seconds that a pod has to save when it is told to stop.")
    env: dict[str, str] = Field(default={}, description="More variables of the trainers.")
    context: str = Field(default="", description="Context of the kubeconfig; empty in a pod or for the current one.")

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        for name in self.env:
            if re.search(r"TOKEN|SECRET|PASSWORD|KEY", name.upper()):
                raise ValueError(
                    f"env sets {name}: a manifest and the run's config are read by many, so neither may hold a secret. "
                    "Give the service account what it needs (workload identity), or mount a Kubernetes secret."
                )
        return self


@dataclass(frozen=True)
class Machine:
    """A slice as GKE names it."""

    accelerator: str
    topology: str
    hosts: int
    chips_per_host: int


def machine(needs: str, devices: int) -> Machine:
    """The slice that `needs` names, for example `tpu v6e-256`.

    Raises:
        ValueError: no such slice, or its chips are not the devices of the mesh.
    """
    found = re.fullmatch(r"tpu (\w+)-(\d+)", needs)
    generation, chips = (found[1], int(found[2])) if found else ("", 0)
    if generation not in GENERATIONS or chips not in TOPOLOGIES:
        raise ValueError(
            f"needs={needs!r} is not a slice that a JobSet can ask for: GKE offers whole slices only. Use 'tpu "
            f"GENERATION-CHIPS' with {' or '.join(GENERATIONS)} and {', '.join(map(str, TOPOLOGIES))} chips."
        )
    if chips != devices:
        raise ValueError(
            f"needs={needs!r} has {chips} chips, mesh has {devices} devices: every chip has its place in the mesh. "
            "Change one of them."
        )
    accelerator, per_host = GENERATIONS[generation]
    hosts = max(1, chips // per_host) if chips > ONE_HOST else 1
    return Machine(accelerator, TOPOLOGIES[chips], hosts, chips // hosts)
