"""The two automations that bring a crashed flow run back (docs/operations.md), and their installation.

Prefect's own flow retries cover Failed, never Crashed. `crash-zombies` turns a run whose machine vanished into a
crash; `reschedule-crashed` starts a crashed run again, once it has stayed crashed long enough: the process worker
reports one crash twice, 3.5 s apart, and reacting to the first report would start the run on two processes.
"""

from datetime import timedelta
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

HEARTBEAT_SECONDS = 30  # PREFECT_FLOWS_HEARTBEAT_FREQUENCY; the smallest that Prefect allows
SILENT_SECONDS = 90  # three missed heartbeats
STILL_CRASHED_SECONDS = 30  # more than the second report of a crash plus a worker's poll and start
PREEMPTIBLE = "preemptible"  # the tag of deployments whose runs may be started again


def _events(*names: str) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in names}


def _change_state(state: StateType, name: str, message: str) -> list[ActionTypes]:
    return [ChangeFlowRunState(state=state, name=name, message=message, force=False)]


TERMINAL = _events("Completed", "Failed", "Cancelled", "Crashed")
PARKED = _events("AwaitingRetry", "AwaitingConcurrencySlot", "Paused", "Suspended", "Scheduled", "Late")
EACH_RUN = {"prefect.resource.id": "prefect.flow-run.*"}

AUTOMATIONS = (
    AutomationCore(
        name="crash-zombies",
        description="A run without heartbeats lost its machine: mark it Crashed.",
        trigger=EventTrigger(
            after=_events("heartbeat"),
            expect=_events("heartbeat") | TERMINAL | PARKED,
            match=EACH_RUN,  # pyright: ignore[reportArgumentType] - pydantic makes the specification
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_SECONDS),
        ),
        actions=_change_state(StateType.CRASHED, "Crashed", f"no heartbeat for {SILENT_SECONDS} s: machine lost"),
    ),
    AutomationCore(
        name="reschedule-crashed",
        description=f"A crashed run with the tag {PREEMPTIBLE} starts again; what it finished is kept.",
        trigger=EventTrigger(
            after=_events("Crashed"),
            expect=_events("Running", "Pending", "Submitting", "Cancelling") | TERMINAL | PARKED,
            match=EACH_RUN,  # pyright: ignore[reportArgumentType]
            match_related={  # pyright: ignore[reportArgumentType]
                "prefect.resource.id": f"prefect.tag.{PREEMPTIBLE}",
                "prefect.resource.role": "tag",
            },
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=STILL_CRASHED_SECONDS),
        ),
        actions=_change_state(StateType.SCHEDULED, "AwaitingRetry", "rescheduled after a crash"),
    ),
)


async def install_automations(client: PrefectClient) -> None:
    """Make each automation, or bring the one of the same name up to date; doubles are removed.

    An unchanged one is left alone: an update makes the server forget the heartbeats it has seen.
    """
    for automation in AUTOMATIONS:
        existing = await client.read_automations_by_name(automation.name)
        if existing and _content(existing[0]) != _content(automation):
            await client.update_automation(existing[0].id, automation)
        elif not existing:
            await client.create_automation(automation)
        for double in existing[1:]:
            await client.delete_automation(double.id)


def _content(automation: AutomationCore) -> dict[str, Any]:
    trigger = automation.trigger.model_dump(mode="json", exclude={"id"})
    lists = {key: sorted(value) if isinstance(value, list) else value for key, value in trigger.items()}
    return {
        "description": automation.description,
        "trigger": lists,
        "actions": [action.model_dump(mode="json") for action in automation.actions],
    }
