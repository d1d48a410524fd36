"""A run that keeps crashing is given up; outside a flow run the check does nothing."""

import pytest

from flows.restarts import MAX_STARTS, begin_again
from tasks.errors import HostFault


def test_outside_a_flow_run_nothing_happens():
    begin_again()


def test_the_last_start_that_is_allowed(monkeypatch):
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(MAX_STARTS))
    begin_again()


def test_the_first_start_too_many_fails_so_that_no_automation_tries_again(monkeypatch):
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(MAX_STARTS + 1))
    with pytest.raises(HostFault, match=f"{MAX_STARTS + 1} times(.|\\n)*start a new run"):
        begin_again()
