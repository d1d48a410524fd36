"""What is asked of the cluster, checked against JobSet's own OpenAPI document."""

import json
from pathlib import Path

import pytest

from flows.presets import CPT, CptPreset
from tasks.errors import ConfigError
from tasks.train.launchers.manifest import jobset_name, manifest
from tasks.train.machines import JobSetConfig
from tests.tasks.train.launchers.fake_kubernetes import require_valid
from tests.tasks.train.nano import nano_spec

CLUSTER = {"image": "registry/nestling:1", "namespace": "ml", "volume": "gs://models", "mount": "/models"}


def big(text_pack, tmp_path, **cluster):
    """The 27B preset on its slice."""
    spec = nano_spec(tmp_path, text_pack)
    config = CPT[CptPreset.B27].with_changes({"launcher": "jobset", "jobset": CLUSTER | cluster})
    mounted = {name: Path("/models") / name for name in ("run_dir", "data_dir", "tokenizer_dir", "base_dir")}
    return spec.model_copy(update=mounted | {"config": config})


def pod_of(body):
    return body["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_v6e_256_is_sixty_four_hosts_of_four_chips(text_pack, tmp_path):
    spec = big(text_pack, tmp_path)
    name = jobset_name(spec, 3)
    body = manifest(spec, Path("/models/run_dir/run.json"), name)
    require_valid(body)
    job = body["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (64, 64, "Indexed")
    pod = pod_of(body)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "16x16",
        "cloud.google.com/gke-spot": "true",
    }
    [container] = pod["containers"]
    assert container["resources"] == {"limits": {"google.com/tpu": "4"}}
    assert container["command"] == ["python", "-m", "tasks.train", "/models/run_dir/run.json"]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert variables["NESTLING_HOSTS"] == "64"
    assert variables["NESTLING_COORDINATOR"] == f"{name}-slice-0-0.{name}:8476", "the host name of the first pod"


def test_the_longest_name_leaves_a_pod_its_63_letters(text_pack, tmp_path):
    name = jobset_name(big(text_pack, tmp_path, name="n" * 30), 9999)
    assert len(f"{name}-slice-0-63-abcde") <= 63
    with pytest.raises(ValueError, match="at most 30 characters"):
        JobSetConfig(**CLUSTER, name="n" * 31)


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        pytest.param({"volume": "claim"}, '"persistentVolumeClaim": {"claimName": "claim"}', id="a claim"),
        pytest.param({"spot": False}, "gke-tpu-topology", id="machines that stay"),
        pytest.param({"queue": "tpu"}, '"kueue.x-k8s.io/queue-name": "tpu"', id="Kueue"),
        pytest.param({"priority_class": "high"}, '"priorityClassName": "high"', id="priority"),
        pytest.param({"env": {"HF_HOME": "/models/hf"}}, '"HF_HOME"', id="variables"),
    ],
)
def test_settings_reach_the_manifest_and_it_stays_valid(text_pack, tmp_path, changes, seen):
    body = manifest(big(text_pack, tmp_path, **changes), Path("/models/run.json"), "x")
    require_valid(body)
    assert seen in json.dumps(body)
    assert ("gke-spot" in json.dumps(body)) == changes.get("spot", True)


def test_the_check_of_manifests_can_fail(text_pack, tmp_path):
    body = manifest(big(text_pack, tmp_path), Path("/models/run.json"), "x")
    pod_of(body)["nodeSelectors"] = {"a": "b"}
    with pytest.raises(ValueError, match=r"JobSet knows no .*nodeSelectors"):
        require_valid(body)
    del pod_of(body)["nodeSelectors"]
    pod_of(body)["terminationGracePeriodSeconds"] = "120"
    with pytest.raises(ValueError, match="valid integer"):
        require_valid(body)


def test_files_that_the_pods_would_not_see_are_refused(text_pack, tmp_path):
    spec = big(text_pack, tmp_path).model_copy(update={"data_dir": Path("/elsewhere")})
    with pytest.raises(ConfigError, match=r"/elsewhere is not below jobset\.mount=/models"):
        manifest(spec, Path("/models/run.json"), "x")
