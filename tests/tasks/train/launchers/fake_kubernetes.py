"""The part of a Kubernetes API that a JobSet launcher uses, over real HTTP on the loopback, and able to misbehave.

Objects have resource versions and a history, lists and watches are served from them, and whatever a test plans is done
once each: refuse, break off, answer late, forget history, show an object only after a while.
"""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

TOKEN = "not-to-be-seen-anywhere"
JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/ml/jobsets"
PODS = "/api/v1/namespaces/ml/pods"
Object = dict[str, Any]


def require_valid(manifest: Object) -> None:
    """The types, required fields and names of JobSet's own OpenAPI document, as Kubeflow's package has it.

    An unknown field is one that does not come back: Kubernetes would drop it without a word.
    """
    manifest = _with_quantities(manifest)
    parsed = JobsetV1alpha2JobSet.model_validate(manifest)
    returned = parsed.model_dump(by_alias=True, exclude_unset=True, mode="json")
    unknown = sorted(set(_paths(manifest)) - set(_paths(returned)))
    if unknown:
        raise ValueError(f"JobSet knows no {', '.join(unknown)}")


def _with_quantities(value: Any) -> Any:
    """Quantities, a type of Kubernetes' own, in the form that the package's classes take."""
    if isinstance(value, list):
        return [_with_quantities(inner) for inner in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: {name: {"actual_instance": amount} for name, amount in inner.items()}
        if key in ("limits", "requests")
        else _with_quantities(inner)
        for key, inner in value.items()
    }


def _paths(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _paths(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _paths(inner, f"{path}[{number}]")
    else:
        yield path


@dataclass
class Plan:
    """What goes wrong once with the next request that fits."""

    method: str
    kind: str
    """jobsets, pods, log or watch"""
    status: int = 0
    """Refuse with this status; 0 breaks the connection off."""
    headers: Mapping[str, str] = field(default_factory=dict)
    late_s: float = 0.0
    is_done_first: bool = False
    """Do what was asked, then fail to say so."""
    line: bytes = b""
    """Send this into a watch before breaking off."""


@dataclass
class Cluster:
    """What the server knows; tests read and change it."""

    url: str = ""
    jobsets: dict[str, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)
    requests: list[tuple[float, str, str]] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    on_create: Callable[[Object], None] = lambda jobset: None
    on_delete: Callable[[str], None] = lambda name: None
    linger_s: float = 0.0
    """Pods that are told to stop save for so long."""
    busy: set[str] = field(default_factory=set)
    overlaps: list[str] = field(default_factory=list)
    """JobSets that were created while pods of another still saved."""
    hidden_s: float = 0.0
    """New objects are shown only after so long."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    changed: threading.Condition = field(init=False)
    history: list[tuple[int, str, Object]] = field(default_factory=list)
    oldest: int = 0
    """Watches from before it have expired."""
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.changed = threading.Condition(self.lock)

    def put(self, jobset: Object, kind: str = "MODIFIED") -> None:
        with self.changed:
            version = next(self._versions)
            jobset["metadata"]["resourceVersion"] = str(version)
            self.jobsets[jobset["metadata"]["name"]] = jobset
            self.history.append((version, kind, json.loads(json.dumps(jobset))))
            self.changed.notify_all()

    def remove(self, name: str) -> None:
        with self.changed:
            jobset = self.jobsets.pop(name, None)
            if jobset is not None:
                version = next(self._versions)
                jobset["metadata"]["resourceVersion"] = str(version)
                self.history.append((version, "DELETED", jobset))
            self.pods = {key: pod for key, pod in self.pods.items() if not key.startswith(name)}
            self.changed.notify_all()

    def version(self) -> int:
        return self.history[-1][0] if self.history else 0

    def forget(self) -> None:
        """Compact: every watch from before has expired."""
        with self.changed:
            self.oldest = self.version() + 1
            self.put_marker()

    def put_marker(self) -> None:
        self.history.append((next(self._versions), "BOOKMARK", {"metadata": {"resourceVersion": str(self.version())}}))
        self.changed.notify_all()

    def add_pod(self, name: str, host: int, status: Object) -> None:
        key = f"{name}-slice-0-{host}-abcde"
        self.pods[key] = {
            "metadata": {
                "name": key,
                "labels": {"jobset.sigs.k8s.io/jobset-name": name},
                "annotations": {"batch.kubernetes.io/job-completion-index": str(host)},
            },
            "spec": {"nodeName": f"node-{host}"},
            "status": status,
        }

    def end(self, name: str, kind: str) -> None:
        """Completed or Failed."""
        with self.changed:
            if name in self.jobsets:
                jobset = self.jobsets[name]
                jobset["status"] = jobset.get("status", {}) | {"conditions": [{"type": kind, "status": "True"}]}
                self.put(jobset)


def terminated(code: int, at: str = "2026-01-01T00:00:00Z", reason: str = "", **more: Any) -> Object:
    """The status of a pod whose trainer has ended."""
    state = {
        "terminated": {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"), "finishedAt": at}
    }
    sidecar = {"name": "gke-gcsfuse-sidecar", "state": {"terminated": {"exitCode": 0, "finishedAt": at}}}
    return {"phase": "Failed", "containerStatuses": [sidecar, {"name": "train", "state": state}]} | more


@contextlib.contextmanager
def serve(directory: Path) -> Iterator[tuple[Path, Cluster]]:
    """A kubeconfig and the cluster that it leads to."""
    cluster = Cluster()

    class Handler(_Handler):
        state = cluster

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "clusters": [{"name": "fake", "cluster": {"server": cluster.url}}],
        "users": [{"name": "fake", "user": {"token": TOKEN}}],
    }
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    try:
        yield kubeconfig, cluster
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Cluster

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = "log" if path.endswith("/log") else "pods" if path.startswith(PODS) else "jobsets"
        if query.get("watch"):
            kind = "watch"
        self.state.requests.append((time.monotonic(), self.command, kind))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "Unauthorized")
        plan = self._planned(kind)
        if plan is not None:
            time.sleep(plan.late_s)
            if plan.is_done_first:
                self._answer(kind, path, query, body, is_said=False)
            if plan.line:
                self._begin_stream()
                self._chunk(plan.line)
            if plan.status and not plan.line:
                return self._refuse(plan.status, "as planned", plan.headers)
            if not plan.late_s or plan.line or plan.is_done_first:
                self.close_connection = True
                self.connection.close()
                return None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._answer(kind, path, query, body)
        return None

    def _planned(self, kind: str) -> Plan | None:
        with self.state.lock:
            for plan in self.state.plans:
                if (plan.method, plan.kind) == (self.command, kind):
                    self.state.plans.remove(plan)
                    return plan
        return None

    def _answer(self, kind: str, path: str, query: Any, body: bytes, is_said: bool = True) -> None:
        state, name = self.state, path.removeprefix(JOBSETS).strip("/")
        say = self._send if is_said else lambda *_: None
        refuse = self._refuse if is_said else lambda *_: None
        if kind == "watch":
            return self._watch(int(query["resourceVersion"][0]), float(query["timeoutSeconds"][0]))
        if kind == "log":
            return say(b"the last words of a trainer\n", "text/plain")
        if kind == "pods":
            wanted = query["labelSelector"][0].split("=")[1]
            with state.lock:
                found = [p for p in state.pods.values() if wanted in p["metadata"]["labels"].values()]
            return say({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found})
        if self.command == "POST":
            manifest = json.loads(body)
            require_valid(manifest)
            name = manifest["metadata"]["name"]
            if name in state.jobsets:
                return refuse(409, f'jobsets.jobset.x-k8s.io "{name}" already exists')
            manifest["metadata"]["shown_at"] = time.monotonic() + state.hidden_s
            state.overlaps.extend([name] if state.busy else [])
            state.put(manifest, "ADDED")
            state.created.append(name)
            state.on_create(manifest)
            return say(manifest, "application/json", 201)
        with state.lock:
            shown = {k: v for k, v in state.jobsets.items() if v["metadata"].get("shown_at", 0) <= time.monotonic()}
        if self.command == "DELETE":
            if name not in state.jobsets:
                return refuse(404, "not found")
            threading.Thread(target=self._delete, args=(name, query["propagationPolicy"][0]), daemon=True).start()
            return say({"kind": "Status", "status": "Success"})
        if name:
            return say(shown[name]) if name in shown else refuse(404, f'jobsets.jobset.x-k8s.io "{name}" not found')
        wanted = query["fieldSelector"][0].removeprefix("metadata.name=")
        items = [jobset for key, jobset in shown.items() if key == wanted]
        return say({"kind": "JobSetList", "metadata": {"resourceVersion": str(state.version())}, "items": items})

    def _delete(self, name: str, policy: str) -> None:
        """As the garbage collector does: in the foreground the object stays until its pods are gone."""
        state = self.state
        with state.changed:
            if name in state.busy or name not in state.jobsets:
                return
            state.busy.add(name)
            if policy == "Foreground":
                state.jobsets[name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                state.put(state.jobsets[name])
            else:
                state.remove(name)
        state.on_delete(name)
        time.sleep(state.linger_s)
        state.busy.discard(name)
        state.remove(name)

    def _watch(self, version: int, timeout_s: float) -> None:
        state, until = self.state, time.monotonic() + timeout_s
        self._begin_stream()
        if version < state.oldest:
            gone = {
                "kind": "Status",
                "code": 410,
                "reason": "Expired",
                "message": f"too old resource version: {version}",
            }
            self._chunk(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        while version >= state.oldest and time.monotonic() < until:
            with state.changed:
                news = [event for event in state.history if event[0] > version]
                if not news:
                    state.changed.wait(0.2)
            for number, kind, jobset in news:
                version = number
                self._chunk(json.dumps({"type": kind, "object": jobset}).encode() + b"\n")
        self._chunk(b"")

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}
        self._send(body, "application/json", status, headers)

    def _send(
        self, body: Any, kind: str = "application/json", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
