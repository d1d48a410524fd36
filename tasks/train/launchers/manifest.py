"""The JobSet of one attempt at a run: pods of a slice, one trainer each."""

import hashlib
from pathlib import Path
from typing import Any

from tasks.errors import ConfigError
from tasks.train.hosts import COORDINATOR, HOST, HOSTS
from tasks.train.machines import JobSetConfig, Machine, machine
from tasks.train.run import RunSpec

API_VERSION, KIND = "jobset.x-k8s.io/v1alpha2", "JobSet"
JOB, CONTAINER = "slice", "train"
PORT = 8476  # where the first trainer introduces the others
RUN_DIR = "nestling/run-dir"  # annotation: whose JobSet this is
INDEX = "batch.kubernetes.io/job-completion-index"  # annotation of a pod: which trainer it is
KEPT_S = 86_400  # a finished JobSet that no flow came back for


def jobset_name(spec: RunSpec, attempt: int) -> str:
    """The same for every flow that starts this attempt, so that there is never a second."""
    digest = hashlib.sha256(str(spec.run_dir).encode()).hexdigest()
    return f"{_settings(spec).name}-{digest[:10]}-{attempt}"


def machine_of(spec: RunSpec) -> Machine:
    """The slice of a run."""
    return machine(spec.config.needs, spec.config.mesh.to_model().num_devices)


def manifest(spec: RunSpec, run_json: Path, name: str) -> dict[str, Any]:
    """The JobSet as the Kubernetes API takes it.

    Raises:
        ConfigError: the pods would not see a file of the run.
    """
    settings = _settings(spec)
    _require_mounted(spec, settings)
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": settings.namespace,
        "labels": {"app.kubernetes.io/managed-by": "nestling"},
        "annotations": {
            RUN_DIR: str(spec.run_dir),
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool",
        },
    }
    if settings.queue:
        metadata["labels"]["kueue.x-k8s.io/queue-name"] = settings.queue
    hosts = machine_of(spec).hosts
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {
            "metadata": {"annotations": {"gke-gcsfuse/volumes": "true"} if _bucket(settings) else {}},
            "spec": _pod(spec, run_json, name, settings),
        },
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata,
        "spec": {
            # Who starts again is the launcher: a pre-emption and a broken host have budgets of their own.
            "failurePolicy": {"maxRestarts": 0},
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "ttlSecondsAfterFinished": KEPT_S,
            "replicatedJobs": [{"name": JOB, "replicas": 1, "template": {"spec": job}}],
        },
    }


def _pod(spec: RunSpec, run_json: Path, name: str, settings: JobSetConfig) -> dict[str, Any]:
    slice_ = machine_of(spec)
    variables = {
        COORDINATOR: f"{name}-{JOB}-0-0.{name}:{PORT}",
        HOSTS: str(slice_.hosts),
        "JAX_COMPILATION_CACHE_DIR": f"{settings.mount}/.jax-cache",
        "TOKENIZERS_PARALLELISM": "false",
    } | settings.env
    selector = {
        "cloud.google.com/gke-tpu-accelerator": slice_.accelerator,
        "cloud.google.com/gke-tpu-topology": slice_.topology,
    }
    if settings.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": settings.grace_s,
        "serviceAccountName": settings.service_account,
        "nodeSelector": selector,
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.image,
                "command": ["python", "-m", "tasks.train", str(run_json)],
                "env": [
                    {"name": HOST, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}},
                    *({"name": key, "value": value} for key, value in variables.items()),
                ],
                "ports": [{"containerPort": PORT}],
                "resources": {"limits": {"google.com/tpu": str(slice_.chips_per_host)}},
                "volumeMounts": [{"name": "store", "mountPath": settings.mount}],
            }
        ],
        "volumes": [{"name": "store"} | _volume(settings)],
    }
    return pod | ({"priorityClassName": settings.priority_class} if settings.priority_class else {})


def _volume(settings: JobSetConfig) -> dict[str, Any]:
    bucket = _bucket(settings)
    if not bucket:
        return {"persistentVolumeClaim": {"claimName": settings.volume}}
    attributes = {"bucketName": bucket, "mountOptions": "implicit-dirs"}
    return {"csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}}


def _bucket(settings: JobSetConfig) -> str:
    return settings.volume.removeprefix("gs://") if settings.volume.startswith("gs://") else ""


def _require_mounted(spec: RunSpec, settings: JobSetConfig) -> None:
    for path in filter(None, (spec.run_dir, spec.data_dir, spec.tokenizer_dir, spec.base_dir)):
        if not path.is_relative_to(settings.mount):
            raise ConfigError(
                f"{path} is not below jobset.mount={settings.mount}: the pods see only the volume {settings.volume}, "
                "which is mounted there in them and in the pod of the flow. Put the store (--store) and its cache on "
                "that volume."
            )


def _settings(spec: RunSpec) -> JobSetConfig:
    assert spec.config.jobset is not None, "TrainConfig gives every jobset launcher its cluster"
    return spec.config.jobset
