"""The JobSet launcher against an API server that does everything but behave."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tasks.errors import ConfigError, DataFault, HostFault, Preempted
from tasks.train.launcher import TrainerError, train_to_the_end
from tasks.train.launchers import cluster as api
from tasks.train.launchers import jobset
from tasks.train.launchers.jobset import JobSetLauncher
from tasks.train.launchers.manifest import jobset_name, manifest
from tasks.train.launchers.processes import ProcessesLauncher
from tasks.train.machines import JobSetConfig
from tasks.train.run import RunSpec
from tests.tasks.train.launchers.fake_kubernetes import TOKEN, Cluster, Plan, serve, terminated
from tests.tasks.train.nano import nano_spec

LAUNCHER = JobSetLauncher()
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def spec(tmp_path, text_pack) -> RunSpec:
    settings = JobSetConfig(
        image="registry/nestling:1", namespace="ml", volume="gs://models", mount=str(tmp_path.parents[1])
    )
    return nano_spec(
        tmp_path / "run",
        text_pack,
        launcher="jobset",
        needs="tpu v6e-4",
        mesh={"fsdp": 4},
        jobset=settings,
        preempt_budget=2,
        fault_budget=1,
    )


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(jobset, "POLL_S", 0.02)
    monkeypatch.setattr(jobset, "SETTLE_S", 2.0)
    monkeypatch.setattr(api, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(api, "WATCH_S", 1)
    with serve(tmp_path) as (kubeconfig, server):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield server


def run(spec: RunSpec, follow=lambda: None) -> int:
    return LAUNCHER.run(spec, spec.write(), follow)


def ends(cluster: Cluster, *statuses, after_s: float = 0.1) -> None:
    """Every JobSet that is created ends so, a moment later; the next with the next status."""
    left = iter(statuses)

    def end(name: str, status) -> None:
        if status is not None:
            cluster.add_pod(name, 0, status)
        is_done = status is not None and status["containerStatuses"][1]["state"]["terminated"]["exitCode"] == 0
        cluster.end(name, "Completed" if is_done else "Failed")

    cluster.on_create = lambda body: threading.Timer(after_s, end, (body["metadata"]["name"], next(left))).start()


def test_done_is_done_and_leaves_nothing_behind(spec, cluster):
    ends(cluster, terminated(0))
    seen = []
    assert run(spec, lambda: seen.append(1)) == 0
    assert cluster.created == [jobset_name(spec, 1)]
    assert not cluster.jobsets
    assert seen, "progress was followed"


DISRUPTED = {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                             "lastTransitionTime": "2026-01-01T00:00:00Z"}]}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(terminated(75), 75, id="saved"),
        pytest.param(terminated(76), 76, id="host fault"),
        pytest.param(terminated(77), 77, id="data fault"),
        pytest.param(terminated(78), 78, id="config fault"),
        pytest.param(terminated(1), 1, id="code fault"),
        pytest.param(terminated(143), 75, id="ended by SIGTERM before it could save"),
        pytest.param(terminated(137), -9, id="killed"),
        pytest.param(terminated(137, reason="OOMKilled"), -9, id="out of memory"),
        pytest.param(terminated(134), -6, id="abort"),
        pytest.param(terminated(137, **DISRUPTED), 75, id="killed with a machine that was taken away"),
        pytest.param(terminated(137, reason="Error") | {"reason": "Evicted"}, 75, id="evicted"),
        pytest.param(terminated(77, **DISRUPTED), 75, id="its disk went before it"),
        pytest.param(None, 75, id="gone with a spot machine"),
    ],
)
def test_what_a_pods_end_means(spec, cluster, monkeypatch, status, code):
    monkeypatch.setattr(jobset, "SETTLE_S", 0.3)
    ends(cluster, status)
    assert run(spec) == code
    assert json.loads(spec.error.read_text())["code"] == code
    if status is not None:
        assert "the last words of a trainer" in spec.log.read_text()


def test_the_pod_that_ended_first_speaks_for_all(spec, cluster):
    """Host 3 found bad data; the others lost a neighbour; one of them was then killed."""

    def fail(body):
        name = body["metadata"]["name"]
        (spec.run_dir / "error-3.json").write_text('{"code": 77, "message": "a record is broken"}')
        cluster.add_pod(name, 0, terminated(76, "2026-01-01T00:00:09Z"))
        cluster.add_pod(name, 1, terminated(137, "2026-01-01T00:00:40Z"))
        cluster.add_pod(
            name, 2, {"phase": "Running", "containerStatuses": [{"name": "train", "state": {"running": {}}}]}
        )
        cluster.add_pod(name, 3, terminated(77, "2026-01-01T00:00:07Z"))
        cluster.end(name, "Failed")

    cluster.on_create = fail
    with pytest.raises(DataFault, match=r"^a record is broken$"):
        train_to_the_end(spec, LAUNCHER, "x", 12)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        pytest.param([75, 75, 0], 3, id="preempted within the budget"),
        pytest.param([75, 75, 75], Preempted, id="preempted too often"),
        pytest.param([137, 75, 0], 3, id="each kind has its own budget"),
        pytest.param([76, 137], HostFault, id="host faults too often"),
        pytest.param([78], ConfigError, id="config is not tried again"),
        pytest.param([1], TrainerError, id="code is not tried again"),
    ],
)
def test_budgets_are_those_of_every_launcher(spec, cluster, codes, expected):
    ends(cluster, *map(terminated, codes))
    if isinstance(expected, int):
        assert train_to_the_end(spec, LAUNCHER, "x", 12) == expected
    else:
        with pytest.raises(expected):
            train_to_the_end(spec, LAUNCHER, "x", 12)
    assert cluster.created == [jobset_name(spec, number + 1) for number in range(len(codes))], "one JobSet an attempt"
    assert not cluster.jobsets


@pytest.mark.parametrize(
    "plans",
    [
        pytest.param([Plan("POST", "jobsets", is_done_first=True)], id="created, but the answer is lost"),
        pytest.param([Plan("POST", "jobsets", 500), Plan("POST", "jobsets", 503)], id="500 on create"),
        pytest.param([Plan("GET", "jobsets", 500)] * 4, id="500 on read"),
        pytest.param([Plan("GET", "jobsets")] * 2, id="connection broken off"),
        pytest.param([Plan("GET", "watch", 410)], id="watch refused: 410"),
        pytest.param([Plan("GET", "watch", 500)] * 3, id="watch refused: 500"),
        pytest.param([Plan("GET", "watch")] * 3, id="watch dropped at once"),
        pytest.param([Plan("GET", "watch", line=b'{"type": "MODIF')], id="watch dropped within a line"),
        pytest.param([Plan("GET", "watch", late_s=1.5)], id="slow watch"),
        pytest.param([Plan("GET", "jobsets", late_s=0.5)] * 2, id="slow answers"),
        pytest.param([Plan("GET", "jobsets", 401)], id="token renewed"),
        pytest.param([Plan("DELETE", "jobsets", 500)], id="500 on delete"),
        pytest.param([Plan("DELETE", "jobsets", is_done_first=True)], id="deleted, but the answer is lost"),
    ],
)
def test_a_server_that_misbehaves_changes_nothing(spec, cluster, plans):
    cluster.plans = list(plans)
    ends(cluster, terminated(0), after_s=0.5)
    assert run(spec) == 0
    assert not cluster.plans, "all of it has happened"
    assert len(cluster.created) == 1
    assert not cluster.jobsets


def test_a_watch_that_has_expired_begins_anew(spec, cluster):
    """410 as an event within the watch, as the API says it after a compaction."""

    def compact(body):
        threading.Timer(0.3, cluster.forget).start()
        threading.Timer(1.0, cluster.end, (body["metadata"]["name"], "Completed")).start()

    cluster.on_create = compact
    cluster.plans = [Plan("GET", "watch", late_s=0.5)]  # it asks from before the compaction
    assert run(spec) == 0


def test_too_many_requests_waits_as_long_as_the_server_says(spec, cluster):
    cluster.plans = [Plan("POST", "jobsets", 429, {"Retry-After": "1"})]
    ends(cluster, terminated(0))
    assert run(spec) == 0
    first, second = (at for at, method, _ in cluster.requests if method == "POST")
    assert second - first >= 1.0


def test_what_was_created_may_not_be_shown_at_once(spec, cluster):
    cluster.hidden_s = 1.0
    ends(cluster, terminated(0), after_s=1.5)
    assert run(spec) == 0
    assert len(cluster.created) == 1


def test_a_name_that_is_taken_but_not_shown_yet_is_waited_for(spec, cluster):
    cluster.hidden_s = 0.5
    cluster.plans = [Plan("POST", "jobsets", is_done_first=True)]
    ends(cluster, terminated(0), after_s=0.8)
    assert run(spec) == 0
    assert len(cluster.created) == 1


def test_deleted_by_someone_else_is_a_host_fault_that_says_so(spec, cluster):
    cluster.on_create = lambda body: threading.Timer(0.3, cluster.remove, (body["metadata"]["name"],)).start()
    with pytest.raises(HostFault, match="was deleted by someone else"):
        train_to_the_end(spec, LAUNCHER, "x", 12)
    assert len(cluster.created) == 2, "one more within the budget, under the next name"


class FlowKilled(BaseException):
    """Stands for SIGKILL of the flow."""


def test_a_flow_that_was_killed_finds_its_jobset_again(spec, cluster, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jobset, "_delete", lambda *_: None)  # SIGKILL deletes nothing

        def follow():
            if cluster.created:
                raise FlowKilled

        with pytest.raises(FlowKilled):
            run(spec, follow)
    [name] = cluster.jobsets
    cluster.add_pod(name, 0, terminated(0))
    threading.Timer(0.5, cluster.end, (name, "Completed")).start()
    assert run(spec) == 0
    assert cluster.created == [name], "adopted, not created again"


def test_what_ended_while_no_flow_was_there_still_counts(spec, cluster, monkeypatch):
    body = manifest(spec, spec.write(), jobset_name(spec, 1))
    cluster.put(body, "ADDED")
    (spec.run_dir / "jobset.json").write_text('{"attempt": 1}')
    spec.error.write_text('{"code": 77, "message": "a record is broken"}')
    cluster.add_pod(body["metadata"]["name"], 0, terminated(77))
    cluster.end(body["metadata"]["name"], "Failed")
    with pytest.raises(DataFault, match=r"^a record is broken$"):
        train_to_the_end(spec, LAUNCHER, "x", 12)
    assert not cluster.created


class Kubelet:
    """Runs the container of every JobSet as a process here, with the command and the variables of its manifest."""

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self.processes: list[subprocess.Popen] = []
        cluster.on_create = self.start
        cluster.on_delete = lambda name: self.processes[-1].terminate()

    def start(self, body) -> None:
        name = body["metadata"]["name"]
        [container] = body["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
        variables = {v["name"]: v.get("value", "0") for v in container["env"]}  # 0 is the index of the only pod
        variables |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "tests.tasks.train.nano", container["command"][-1]]
        assert container["command"][:-1] == ["python", "-m", "tasks.train"]
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        threading.Thread(target=self._wait, args=(name, process), daemon=True).start()

    def _wait(self, name: str, process: subprocess.Popen) -> None:
        code = process.wait()
        self._cluster.add_pod(name, 0, terminated(code if code >= 0 else 128 - code))
        self._cluster.end(name, "Completed" if code == 0 else "Failed")


@pytest.mark.slow
def test_real_trainers_told_and_killed_end_like_the_undisturbed_one(tmp_path, text_pack, spec, cluster):
    kubelet = Kubelet(cluster)
    longer = {"total_tokens": 128 * 24, "preempt_budget": 1, "fault_budget": 1}
    spec = spec.model_copy(update={"config": spec.config.with_changes(longer)})
    alone = nano_spec(tmp_path / "alone", text_pack, launcher="processes", **(longer | {"mesh": {"fsdp": 4}}))
    assert ProcessesLauncher((sys.executable, "-m", "tests.tasks.train.nano")).run(alone, alone.write(), int) == 0
    plan = [(5, signal.SIGTERM), (12, signal.SIGKILL)]

    class Disturbing(JobSetLauncher):
        def run(self, spec, run_json, follow):
            def both():
                follow()
                steps = spec.metrics.read_text().count("\n") if spec.metrics.exists() else 0
                if plan and steps >= plan[0][0]:
                    kubelet.processes[-1].send_signal(plan.pop(0)[1])

            return super().run(spec, run_json, both)

    assert train_to_the_end(spec, Disturbing(), "x", 24) == 3
    assert len(cluster.created) == 3
    ours, theirs = ({p.name: p.read_bytes() for p in s.result.rglob("*") if p.is_file()} for s in (spec, alone))
    assert ours == theirs


def test_a_jobset_that_is_being_deleted_is_waited_for(spec, cluster):
    body = manifest(spec, spec.write(), jobset_name(spec, 1))
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.put(body, "ADDED")
    threading.Timer(0.5, cluster.remove, (body["metadata"]["name"],)).start()
    ends(cluster, terminated(0))
    assert run(spec) == 0
    assert len(cluster.created) == 1


def test_a_name_of_another_run_is_refused(spec, cluster):
    body = manifest(spec, spec.write(), jobset_name(spec, 1))
    body["metadata"]["annotations"]["nestling/run-dir"] = "/somewhere/else"
    cluster.put(body, "ADDED")
    with pytest.raises(ConfigError, match="is of another run"):
        run(spec)


def test_an_attempt_begins_when_the_last_pod_of_the_one_before_is_gone(spec, cluster):
    cluster.linger_s = 0.5
    ends(cluster, terminated(76), terminated(0))
    assert train_to_the_end(spec, LAUNCHER, "x", 12) == 2
    assert not cluster.overlaps, "two would write one run"


def test_stopping_the_flow_deletes_the_jobset_and_waits_while_its_pods_save(spec, cluster):
    deleted = []

    def delete(name):
        time.sleep(0.3)
        deleted.append(name)

    cluster.on_delete = delete

    def follow():
        if cluster.created:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, follow)
    assert deleted == cluster.created
    assert not cluster.jobsets
    assert not cluster.busy, "and the last pod is gone"


def test_no_permission_is_said_with_the_role_and_no_token_is_ever_written(spec, cluster, caplog):
    caplog.set_level(logging.DEBUG)
    cluster.plans = [Plan("GET", "jobsets", 500), Plan("POST", "jobsets", 403)]
    with pytest.raises(ConfigError, match=r"get, list, watch, create and delete on jobsets.jobset.x-k8s.io") as caught:
        run(spec)
    assert TOKEN not in str(caught.value) + caplog.text
    for path in spec.run_dir.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


def test_a_manifest_that_the_server_does_not_take_stops_at_once(spec, cluster):
    cluster.plans = [Plan("POST", "jobsets", 422)]
    with pytest.raises(ConfigError, match="does not take the JobSet"):
        run(spec)


def test_an_api_that_stays_away_is_a_host_fault_and_leaves_the_trainers_alone(spec, cluster, monkeypatch):
    monkeypatch.setattr(jobset, "Cluster", lambda settings: api.Cluster(settings, patience_s=0.5))
    cluster.on_create = lambda body: cluster.plans.extend([Plan("GET", "jobsets", 503)] * 50)
    with pytest.raises(HostFault, match="the same command finds them again"):
        run(spec)
    assert cluster.jobsets


def test_an_image_that_cannot_be_had_is_not_waited_for(spec, cluster, monkeypatch):
    monkeypatch.setattr(jobset, "STUCK_S", 0.5)
    state = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "registry/nestling:1"'}}
    cluster.on_create = lambda body: cluster.add_pod(
        body["metadata"]["name"], 0, {"phase": "Pending", "containerStatuses": [{"name": "train", "state": state}]}
    )
    with pytest.raises(ConfigError, match="Back-off pulling image"):
        run(spec)
    assert not cluster.jobsets


def test_without_the_library_it_says_how_to_install_it(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[gke\]'"):
        run(spec)


def test_without_a_cluster_it_says_where_to_run(spec, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="no cluster for launcher='jobset'"):
        run(spec)
