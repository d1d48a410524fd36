"""What a flow run does first when it is not its first start."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.states import Crashed

from tasks.errors import HostFault

MAX_STARTS = 20  # the automation that reschedules a crashed run has no cap of its own


def begin_again() -> None:
    """On a restart: give up after MAX_STARTS, and close the task runs that the dead process left Running.

    Nobody else closes them: without this the UI shows them running for ever. Outside a flow run nothing happens.

    Raises:
        HostFault: too many starts; the run then is Failed, which no automation reschedules.
    """
    starts = flow_run.run_count or 0
    if starts > MAX_STARTS:
        raise HostFault(
            f"this flow run has started {starts} times, more than {MAX_STARTS}: something other than a passing crash "
            "stops it. Read the logs of its last attempts; start a new run when the cause is gone."
        )
    if starts < 2 or flow_run.id is None:
        return
    running = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING])))
    of_this = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id]))
    with get_client(sync_client=True) as client:
        for lost in client.read_task_runs(flow_run_filter=of_this, task_run_filter=running):
            client.set_task_run_state(lost.id, Crashed(message="its process died"), force=True)
