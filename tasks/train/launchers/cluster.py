"""A Kubernetes API that may misbehave: every question is asked until it is answered, a watch until it is cut off.

Messages hold what the server said, never a header or what was sent to it, so no token is ever written down.
"""

import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from tasks.errors import ConfigError, HostFault
from tasks.train.machines import JobSetConfig

log = logging.getLogger(__name__)

GROUP, VERSION, PLURAL = "jobset.x-k8s.io", "v1alpha2", "jobsets"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
UNREACHABLE_S = 1800.0  # the trainers go on without us, so there is no hurry to give up
CALL_S = 30.0  # for one answer
WATCH_S = 60  # then the list is read again, whatever the watch said
NOT_FOUND, CONFLICT, GONE, TOO_MANY = 404, 409, 410, 429
RBAC = (
    "The flow's service account needs get, list, watch, create and delete on jobsets.jobset.x-k8s.io and get and list "
    "on pods and pods/log in the namespace; docs/stages/train.md has the role."
)


class RefusedError(Exception):
    """The server's answer is no: an HTTP status below 500 that asking again does not change."""

    def __init__(self, status: int, said: str):
        super().__init__(f"HTTP {status}: {said}")
        self.status = status


class StoppedError(Exception):
    """A question was given up because the launcher stops."""


class Cluster:
    """The JobSets and pods of one namespace."""

    def __init__(self, settings: JobSetConfig, patience_s: float = UNREACHABLE_S):
        """Find the cluster, in a pod or from a kubeconfig; it may be silent for `patience_s`.

        Raises:
            ModuleNotFoundError: the client library is not installed.
            ConfigError: there is no cluster to talk to.
        """
        try:
            self._kubernetes = import_module("kubernetes")
        except ModuleNotFoundError as error:
            if error.name != "kubernetes":
                raise
            raise ModuleNotFoundError(
                "launcher='jobset' needs kubernetes, which the [gke] extra brings. Install it with: pip install -e "
                "'.[gke]'",
                name="kubernetes",
            ) from error
        self._namespace, self._patience_s = settings.namespace, patience_s
        self._stopped = threading.Event()
        api = self._connect(settings.context)
        self._jobsets = self._kubernetes.client.CustomObjectsApi(api)
        self._core = self._kubernetes.client.CoreV1Api(api)

    def _connect(self, context: str) -> Any:
        config = self._kubernetes.config
        configuration = self._kubernetes.client.Configuration()
        configuration.retries = 0  # ours know of Retry-After, and of being stopped
        try:
            if not context and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(client_configuration=configuration)
            else:
                config.load_kube_config(
                    config_file=os.environ.get("KUBECONFIG"),
                    context=context or None,
                    client_configuration=configuration,
                )
        except config.ConfigException as error:
            raise ConfigError(
                f"no cluster for launcher='jobset': {error}. The flow must run in a pod of the cluster, or have a "
                "kubeconfig (KUBECONFIG, jobset.context). Run it there, or choose another launcher."
            ) from error
        return self._kubernetes.client.ApiClient(configuration)

    def stop(self) -> None:
        """End all waiting: what is asked or watched in another thread raises or returns soon."""
        self._stopped.set()

    def create(self, manifest: dict[str, Any]) -> bool:
        """Create a JobSet; False if its name is taken, perhaps by a request of ours whose answer was lost."""
        try:
            self._ask("create a JobSet", self._jobsets.create_namespaced_custom_object, *self._place(), manifest)
        except RefusedError as error:
            if error.status == CONFLICT:
                return False
            raise ConfigError(
                f"the cluster does not take the JobSet {manifest['metadata']['name']} ({error}). See whether JobSet "
                f"({GROUP}/{VERSION}) is installed and its quota, namespace and service account exist."
            ) from error
        return True

    def get(self, name: str) -> dict[str, Any] | None:
        """A JobSet, None if there is none."""
        try:
            return self._ask("read a JobSet", self._jobsets.get_namespaced_custom_object, *self._place(), name)
        except RefusedError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def delete(self, name: str) -> None:
        """Delete a JobSet: its pods are told to stop, and it is there until the last of them is gone."""
        options = {"propagation_policy": "Foreground"}
        try:
            self._ask("delete a JobSet", self._jobsets.delete_namespaced_custom_object, *self._place(), name, **options)
        except RefusedError as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                raise

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of a JobSet as the API gives them, those that have ended included."""
        selector = f"jobset.sigs.k8s.io/jobset-name={name}"
        options = {"label_selector": selector, "_preload_content": False}
        response = self._ask("list pods", self._core.list_namespaced_pod, self._namespace, **options)
        return json.loads(response.data)["items"]

    def pod_log(self, pod: str, container: str, lines: int) -> str:
        """The end of what a container wrote; empty when it is gone with its machine."""
        options = {"container": container, "tail_lines": lines, "_preload_content": False}
        try:
            response = self._ask("read a log", self._core.read_namespaced_pod_log, pod, self._namespace, **options)
            return response.data.decode(errors="replace")
        except RefusedError:
            return ""

    def watch(self, name: str) -> Iterator[dict[str, Any] | None]:
        """The JobSet now and after every change, None when it is not there; ends only with `stop`.

        A watch that was cut off, has expired (410) or was refused begins anew with a list, so no change is missed: at
        worst several are seen as one.
        """
        failures = 0
        select = {"field_selector": f"metadata.name={name}"}
        while not self._stopped.is_set():
            listed = self._ask("list JobSets", self._jobsets.list_namespaced_custom_object, *self._place(), **select)
            yield listed["items"][0] if listed["items"] else None
            try:
                for event in self._stream(select | {"resource_version": listed["metadata"]["resourceVersion"]}):
                    failures = 0
                    if event["type"] in ("ADDED", "MODIFIED"):
                        yield event["object"]
                    elif event["type"] == "DELETED":
                        yield None
                    elif event["type"] == "ERROR":
                        log.info("the watch ends: %s", event["object"].get("message", "no reason given"))
                        break
                self._stopped.wait(FIRST_WAIT_S)
            except Exception as error:
                wait_s = self._wait_after(error, failures)
                failures += 1
                log.info("the watch broke off (%s); again in %.1f s", _said(error), wait_s)
                self._stopped.wait(wait_s)

    def _stream(self, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        response = self._jobsets.list_namespaced_custom_object(
            *self._place(),
            **options,
            watch=True,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_S,
            _preload_content=False,
            _request_timeout=(CALL_S, WATCH_S + CALL_S),
        )
        rest = b""
        self._require_good(response)
        try:
            for chunk in response.stream(amt=None):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (json.loads(line) for line in lines if line.strip())
        finally:
            response.close()
            response.release_conn()

    def _ask(self, what: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        began, failures = time.monotonic(), 0
        while not self._stopped.is_set():
            try:
                answer = call(*args, **options, _request_timeout=CALL_S)
                if options.get("_preload_content") is False:
                    self._require_good(answer)
                return answer
            except Exception as error:
                wait_s = self._wait_after(error, failures)
                failures += 1
                waited_s = time.monotonic() - began
                if waited_s + wait_s > self._patience_s:
                    raise HostFault(
                        f"the Kubernetes API gives no answer to '{what}' for {waited_s:.0f} s ({_said(error)}). The "
                        "trainers may still run; the same command finds them again."
                    ) from None
                log.warning("cannot %s: %s; again in %.1f s", what, _said(error), wait_s)
            self._stopped.wait(wait_s)
        raise StoppedError(what)

    def _require_good(self, response: Any) -> None:
        """The library looks at the status only of what it parses itself."""
        if response.status >= 300:
            raise self._kubernetes.client.exceptions.ApiException(http_resp=response)

    def _wait_after(self, error: Exception, failures: int) -> float:
        """Seconds until it makes sense to ask again.

        Raises:
            RefusedError, ConfigError: it makes none.
        """
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**failures) * random.uniform(0.7, 1.3)
        if not isinstance(error, self._kubernetes.client.exceptions.ApiException):
            if isinstance(error, _transport_errors()):
                return wait_s
            raise error
        status, headers = getattr(error, "status", None) or 0, getattr(error, "headers", None) or {}
        if status == 403:
            raise ConfigError(f"the cluster forbids it ({_said(error)}). {RBAC}") from None
        if status == TOO_MANY:
            after = str(headers.get("Retry-After", ""))
            return max(wait_s, float(after)) if after.isdigit() else wait_s
        if status in (0, 401, 408, GONE) or status >= 500:  # 401: a token is being renewed
            return wait_s
        raise RefusedError(status, _said(error)) from None

    def _place(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self._namespace, PLURAL


def _transport_errors() -> tuple[type[Exception], ...]:
    return (OSError, import_module("urllib3").exceptions.HTTPError, ValueError)  # ValueError: half a JSON document


def _said(error: Exception) -> str:
    """The server's own words if there are any."""
    try:
        return str(json.loads(getattr(error, "body", None) or "")["message"])[:300]
    except (ValueError, KeyError, TypeError):
        pass
    status = getattr(error, "status", None)
    return f"HTTP {status}" if status else f"{type(error).__name__}: {str(error)[:200]}"
