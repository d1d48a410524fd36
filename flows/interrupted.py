"""Flow runs that stopped with their machine: found, and put back in the queue for the next worker.

The automations watch a living server. When the server itself stops or loses power, what it knew of events is gone, so
`make ui` looks for such runs when it stops and when it starts. Plain HTTP: this runs in the supervisor.
"""

import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.request import Request, urlopen

STARTED = ("PENDING", "RUNNING")
TAG = "preemptible"  # PREEMPTIBLE of flows/automations.py, which imports Prefect


class Runs:
    """The flow runs of one work pool, over the API of a running server."""

    def __init__(self, api: str, auth: str | None, pool: str):
        self._api = api
        self._pool = pool
        self._headers = {"Content-Type": "application/json"}
        if auth:
            self._headers["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()

    def started(self) -> list[str]:
        """Ids of the preemptible runs that have started and not ended."""
        return self._ids({"state": {"type": {"any_": list(STARTED)}}})

    def crashed(self) -> list[str]:
        """Ids of the preemptible runs that are crashed: nothing but a server that died leaves one so.

        A living server starts them again half a minute later. One that starts finds their heartbeats old before anybody
        can ask, and may have stopped within that half minute.
        """
        return self._ids({"state": {"type": {"any_": ["CRASHED"]}}})

    def _ids(self, runs: dict[str, Any]) -> list[str]:
        found = self._post(
            "/flow_runs/filter",
            {
                "flow_runs": runs | {"tags": {"all_": [TAG]}},
                "work_pools": {"name": {"any_": [self._pool]}},
                "limit": 200,
            },
        )
        return [run["id"] for run in found]

    def queue_again(self, ids: list[str], why: str) -> int:
        """Put those that have not ended by themselves back in the queue; returns how many."""
        if not ids:
            return 0
        states = ["CRASHED", *STARTED]
        found = self._post(
            "/flow_runs/filter", {"flow_runs": {"id": {"any_": ids}, "state": {"type": {"any_": states}}}}
        )
        for run in found:
            now = datetime.now(UTC).isoformat()
            # A server holds an event of a state back, a quarter of an hour long, until it has seen that of the state
            # before. It has not if another server has: then it would take the resumed run's old heartbeats for its
            # last ones. An event is known by its id, which is that of the state.
            resource = {"prefect.resource.id": f"prefect.flow-run.{run['id']}"}
            seen = {"id": run["state_id"], "occurred": now, "event": "nestling.flow-run.seen", "resource": resource}
            self._post("/events", [seen])
            details = {"scheduled_time": now}
            state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": why, "state_details": details}
            self._post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
        return len(found)

    def _post(self, path: str, body: Any) -> Any:
        request = Request(self._api + path, data=json.dumps(body).encode(), headers=self._headers, method="POST")
        with urlopen(request, timeout=30) as response:
            text = response.read()
            return json.loads(text) if text else None
