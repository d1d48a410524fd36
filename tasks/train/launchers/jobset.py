"""Trainers as the pods of a slice on GKE: a JobSet for each attempt, found again by a flow that was restarted."""

import json
import logging
import os
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tasks.errors import ConfigError
from tasks.train.hosts import error_file
from tasks.train.journal import write_whole
from tasks.train.launcher import DONE, HOST, PREEMPTED, Follow
from tasks.train.launchers.cluster import Cluster, StoppedError
from tasks.train.launchers.ends import End, decisive
from tasks.train.launchers.manifest import CONTAINER, INDEX, RUN_DIR, jobset_name, machine_of, manifest
from tasks.train.run import RunSpec

log = logging.getLogger(__name__)

POLL_S = 0.5
SETTLE_S = 30.0  # after which the API must know what it was told
HANDS_OFF_S = 5.0  # for a request that is under way
STOP_S = 60.0  # beyond the pods' own grace
LOG_LINES = 200
KILLED, TERMINATED = -9, -15
STUCK_S = 600.0  # for a registry that is briefly away
STUCK = {"InvalidImageName", "CreateContainerConfigError", "ErrImagePull", "ImagePullBackOff"}


class JobSetLauncher:
    """Creates the JobSet of the next attempt or adopts the one that is there, and stays until it has ended.

    A flow that is told to stop deletes it, and the pods save; a flow that is killed leaves it running for the next.
    """

    def run(self, spec: RunSpec, run_json: Path, follow: Follow) -> int:
        """The exit code that stands for all pods.

        Raises:
            ConfigError: the cluster does not take the JobSet, or can never start it.
            HostFault: the Kubernetes API is away.
        """
        assert spec.config.jobset is not None
        cluster = Cluster(spec.config.jobset)
        attempt = _Attempt(spec, run_json, cluster)
        attempt.thread.start()
        try:
            while attempt.thread.is_alive():
                follow()
                attempt.thread.join(POLL_S)
        except BaseException:
            log.warning("stopping JobSet %s; its trainers save first", attempt.name)
            cluster.stop()
            attempt.thread.join(HANDS_OFF_S)
            _delete(spec, attempt.name)
            raise
        finally:
            follow()
        return attempt.result()


class _Attempt:
    """One JobSet from its creation to its end, in a thread, because a watch blocks and progress must not."""

    def __init__(self, spec: RunSpec, run_json: Path, cluster: Cluster):
        self._spec, self._run_json, self._cluster = spec, run_json, cluster
        self._number = _read_number(spec)
        self.name = jobset_name(spec, self._number)
        self._code: int | None = None
        self._error: Exception | None = None
        self._last_seen, self._is_up = "", False
        self._stuck_at: float | None = None
        self.thread = threading.Thread(target=self._run, name="jobset", daemon=True)

    def result(self) -> int:
        if self._error is not None:
            raise self._error
        assert self._code is not None
        return self._code

    def _run(self) -> None:
        try:
            self._start()
            self._code = self._wait()
            # The next attempt waits for the last pod of this one: two would write one run.
            self._cluster.delete(self.name)
            while self._cluster.get(self.name) is not None:
                time.sleep(POLL_S)
            write_whole(_number_file(self._spec), json.dumps({"attempt": self._number + 1}) + "\n")
        except StoppedError:
            pass
        except Exception as error:
            self._error = error

    def _start(self) -> None:
        write_whole(_number_file(self._spec), json.dumps({"attempt": self._number}) + "\n")
        body = manifest(self._spec, self._run_json, self.name)
        until = time.monotonic() + SETTLE_S
        while True:
            found = self._cluster.get(self.name)
            if found is None:
                self._spec.error.unlink(missing_ok=True)
                if self._cluster.create(body):
                    log.info("created JobSet %s (%s)", self.name, self._spec.config.needs)
                    return
                if time.monotonic() < until:  # its name is taken, but it is not shown yet
                    time.sleep(POLL_S)
                    continue
                raise ConfigError(f"JobSet {self.name} can be neither created (its name is taken) nor read.")
            owner = found["metadata"].get("annotations", {}).get(RUN_DIR)
            if owner != str(self._spec.run_dir):
                raise ConfigError(
                    f"JobSet {self.name} is of another run ({owner}), not of {self._spec.run_dir}: two runs would "
                    "write each other's files. Set jobset.name to another one."
                )
            if "deletionTimestamp" not in found["metadata"]:
                log.info("adopted JobSet %s, which is already there", self.name)
                return
            time.sleep(POLL_S)  # an earlier flow deleted it; its pods still save

    def _wait(self) -> int:
        """Until the JobSet has ended; the code that stands for its pods."""
        began, was_seen = time.monotonic(), False
        for jobset in self._cluster.watch(self.name):
            if jobset is None:
                is_settled = was_seen or time.monotonic() > began + SETTLE_S
                if is_settled and self._cluster.get(self.name) is None:
                    return self._say(HOST, f"JobSet {self.name} was deleted by someone else.")
                continue
            was_seen = True
            self._tell(jobset)
            ended = {c["type"] for c in jobset.get("status", {}).get("conditions", []) if c["status"] == "True"}
            if "Completed" in ended:
                return DONE
            if "Failed" in ended:
                return self._why()
            self._require_startable()
        raise StoppedError("watch")

    def _tell(self, jobset: dict[str, Any]) -> None:
        """Log what changed: a slice may be waited for for hours."""
        jobs = jobset.get("status", {}).get("replicatedJobsStatus", [])
        counts = {name: sum(job.get(name, 0) for job in jobs) for name in ("active", "ready", "succeeded", "failed")}
        seen = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "waiting for machines"
        self._is_up = counts["ready"] > 0
        if seen != self._last_seen:
            log.info("JobSet %s: %s", self.name, seen)
            self._last_seen = seen

    def _why(self) -> int:
        """What the pods' ends mean together."""
        ends: dict[End, dict[str, Any]] = {}
        until = time.monotonic() + SETTLE_S
        while not ends and time.monotonic() < until:
            ends = {end: pod for pod in self._cluster.pods(self.name) if (end := _end(pod)) is not None}
            time.sleep(0 if ends else POLL_S)
        if not ends:
            spot = self._spec.config.jobset is not None and self._spec.config.jobset.spot
            return self._say(
                PREEMPTED if spot else HOST, f"JobSet {self.name} failed and none of its pods is left to say why."
            )
        end = decisive(ends)
        pod = ends[end]
        self._keep_log(pod["metadata"]["name"])
        if (said := error_file(self._spec, end.host)) != self._spec.error and said.exists():
            os.replace(said, self._spec.error)
        code = PREEMPTED if end.code == TERMINATED else end.code
        if not self._spec.error.exists():
            self._say(code, f"trainer {end.host} of {machine_of(self._spec).hosts} {_reason(pod, end.code)}")
        return code

    def _keep_log(self, pod: str) -> None:
        text = self._cluster.pod_log(pod, CONTAINER, LOG_LINES)
        with self._spec.log.open("a") as file:
            file.write(f"--- the end of the log of {pod}\n{text.rstrip()}\n")

    def _say(self, code: int, message: str) -> int:
        """What the user reads when a budget is spent; a trainer that was killed could not write it."""
        write_whole(self._spec.error, json.dumps({"code": code, "message": message}) + "\n")
        return code

    def _require_startable(self) -> None:
        """Give up on what would wait for ever: an image that cannot be had, a reference to nothing."""
        waiting = [
            f"{pod['metadata']['name']}: {state['reason']} {state.get('message', '')}".strip()
            for pod in (self._cluster.pods(self.name) if not self._is_up else [])
            for status in pod.get("status", {}).get("containerStatuses", [])
            if (state := status.get("state", {}).get("waiting")) and state.get("reason") in STUCK
        ]
        now = time.monotonic()
        self._stuck_at = (self._stuck_at or now) if waiting else None
        if self._stuck_at is not None and now - self._stuck_at >= STUCK_S:
            self._cluster.delete(self.name)
            raise ConfigError(
                f"the pods of JobSet {self.name} cannot start ({waiting[0][:300]}): they would wait for ever. Correct "
                "jobset.image, env or service account; the same command resumes."
            )


def _end(pod: dict[str, Any]) -> End | None:
    """How the trainer of a pod ended; None if it runs, or was told to stop because another had ended."""
    status = pod.get("status", {})
    host = int(pod["metadata"].get("annotations", {}).get(INDEX, 0))
    disruption = _disruption(pod)
    for container in status.get("containerStatuses", []):
        ended = container.get("state", {}).get("terminated")
        if container["name"] == CONTAINER and ended:
            code = _code(ended["exitCode"], ended.get("reason", ""))
            at_s = _seconds(ended.get("finishedAt"))
            if disruption and code not in (DONE, PREEMPTED):  # it began before its neighbours noticed
                return End(host, TERMINATED, min(at_s, _seconds(disruption.get("lastTransitionTime"))))
            return End(host, code, at_s)
    if disruption:
        return End(host, TERMINATED, _seconds(disruption.get("lastTransitionTime")))
    if status.get("phase") == "Failed":
        return End(host, HOST, _seconds(None))
    return None


def _disruption(pod: dict[str, Any]) -> dict[str, Any] | None:
    """The condition that says that Kubernetes or its cloud took the pod away."""
    status = pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return condition
    if status.get("reason") in ("Preempting", "Terminated", "NodeShutdown", "Shutdown", "Evicted", "NodeLost"):
        return {"reason": status["reason"], "message": status.get("message", "")}
    return None


def _code(exit_code: int, reason: str) -> int:
    """A container's exit code as subprocess would say it."""
    if reason == "OOMKilled":
        return KILLED
    return 128 - exit_code if 128 < exit_code < 160 else exit_code


def _reason(pod: dict[str, Any], code: int) -> str:
    where = f"(pod {pod['metadata']['name']} on {pod.get('spec', {}).get('nodeName', 'no node')})"
    if disruption := _disruption(pod):
        return f"was taken away: {disruption.get('reason')} {disruption.get('message', '')} {where}".strip()
    if code == KILLED:
        return f"was killed, perhaps because memory ran out {where}."
    return f"was killed by signal {-code} {where}." if code < 0 else f"ended with exit code {code} {where}."


def _seconds(stamp: str | None) -> float:
    """A time of the API in seconds; one that is not known comes last."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() if stamp else float("inf")


def _delete(spec: RunSpec, name: str) -> None:
    """Delete a JobSet and wait while its pods save."""
    assert spec.config.jobset is not None
    until = time.monotonic() + spec.config.jobset.grace_s + STOP_S
    try:
        cluster = Cluster(spec.config.jobset, patience_s=STOP_S)
        cluster.delete(name)
        while cluster.get(name) is not None and time.monotonic() < until:
            time.sleep(POLL_S)
    except Exception:  # the flow is ending anyway, and its own reason is what must be seen
        log.exception("JobSet %s may still run: delete it, or start the same command again to adopt it", name)


def _number_file(spec: RunSpec) -> Path:
    return spec.run_dir / "jobset.json"


def _read_number(spec: RunSpec) -> int:
    """Which attempt is to be made, or is being made."""
    file = _number_file(spec)
    return int(json.loads(file.read_text())["attempt"]) if file.exists() else 1
