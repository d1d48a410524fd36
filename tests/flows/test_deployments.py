"""prefect.yaml against the code: it can be deployed, it says nothing that flows/presets.py says, nothing is missing."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.utilities.schema_tools.validation import validate

from flows.automations import AUTOMATIONS, HEARTBEAT_SECONDS, PREEMPTIBLE, SILENT_SECONDS, STILL_CRASHED_SECONDS
from flows.interrupted import TAG
from flows.registry import FLOWS
from flows.server import Place, settings

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = PROJECT["deployments"]
POOLS: dict[str, dict[str, Any]] = PROJECT["definitions"]["pools"]


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    module, _, name = deployment["entrypoint"].partition(":")
    return getattr(importlib.import_module(module), name)


def full_name(deployment: dict[str, Any]) -> str:
    return f"{flow_of(deployment).name}/{deployment['name']}"


EACH = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: f"{d['entrypoint']}/{d['name']}")


def test_every_preset_has_one_deployment_and_every_deployment_a_preset():
    names = [full_name(deployment) for deployment in DEPLOYMENTS]
    rows = [f"{flow}/{preset}" for flow, spec in FLOWS.items() for preset in spec.presets]
    assert sorted(names) == sorted(rows)


@EACH
def test_the_entrypoint_is_a_module_and_a_flow_of_the_registry(deployment):
    assert ".py" not in deployment["entrypoint"], "the path form doubles modules (style 5)"
    flow = flow_of(deployment)
    assert isinstance(flow, Flow)
    assert flow.name in FLOWS


@EACH
def test_the_parameters_are_the_preset_of_that_name_and_nothing_else(deployment):
    assert deployment["parameters"] == {"preset": deployment["name"]}
    flow = flow_of(deployment)
    assert validate(deployment["parameters"], flow.parameters.model_dump_for_openapi()) == []
    flow.validate_parameters(deployment["parameters"])


@EACH
def test_the_pool_is_declared_and_the_schema_enforced(deployment):
    assert deployment["work_pool"]["name"] in POOLS
    assert deployment["enforce_parameter_schema"] is True
    assert {"nestling", PREEMPTIBLE} <= set(deployment["tags"])
    assert not {"job_variables"} & set(deployment["work_pool"]), "machine shapes belong to deployments/<cloud>/"


@EACH
def test_what_needs_an_accelerator_has_a_pool_that_has_it(deployment):
    config = FLOWS[flow_of(deployment).name].presets[deployment["name"]]
    needs = getattr(config, "needs", "")
    expected = needs.replace(" ", "-") if needs else "local"  # "tpu v6e-64" -> tpu-v6e-64
    assert deployment["work_pool"]["name"] == expected


@EACH
def test_the_form_has_every_knob_blank_and_with_help(deployment):
    schema = flow_of(deployment).parameters.model_dump_for_openapi()
    assert "enum" in schema["definitions"][schema["properties"]["preset"]["$ref"].rpartition("/")[2]]
    form = schema["definitions"][schema["properties"]["changes"]["$ref"].rpartition("/")[2]]
    config = FLOWS[flow_of(deployment).name].presets[deployment["name"]]
    assert set(form["properties"]) == set(type(config).model_fields)
    assert "required" not in form
    assert schema["properties"]["changes"]["default"] == {}
    helpless = [name for name, prop in form["properties"].items() if not prop.get("description")]
    assert not helpless, f"no Field(description=…): {helpless}"
    assert not [name for name, prop in form["properties"].items() if "default" in prop]


def test_evaluation_runs_every_night_in_tokyo():
    nightly = next(d for d in DEPLOYMENTS if full_name(d) == "eval/nightly")
    assert nightly["schedules"] == [{"cron": "30 2 * * *", "timezone": "Asia/Tokyo", "slug": "nightly"}]
    assert nightly["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW", "missed nights must not pile up"
    assert [d for d in DEPLOYMENTS if d.get("schedules")] == [nightly]


@pytest.mark.parametrize("flow", ["pretrain", "cpt", "sft", "factory"])
def test_one_trainer_of_a_kind_at_a_time(flow):
    found = [d for d in DEPLOYMENTS if flow_of(d).name == flow]
    assert found
    assert all(d["concurrency_limit"]["limit"] == 1 for d in found)
    assert all(d["concurrency_limit"]["collision_strategy"] == "ENQUEUE" for d in found)


@pytest.mark.parametrize(("name", "pool"), POOLS.items())
def test_each_pool_has_a_template_that_keeps_output_off_the_workers_pipe(name, pool):
    template = json.loads((ROOT / pool["template"]).read_text())
    assert template["variables"]["properties"]["stream_output"]["default"] is False
    assert pool["description"]
    assert (ROOT / pool["template"]).with_name("README.md").exists()
    assert (pool["type"], len(name) > 0) == ("process", True)


def test_no_python_in_deployments():
    assert not list((ROOT / "deployments").rglob("*.py"))


def test_the_automations_leave_time_for_what_they_wait_for():
    assert [automation.name for automation in AUTOMATIONS] == ["crash-zombies", "reschedule-crashed"]
    assert SILENT_SECONDS >= 2.5 * HEARTBEAT_SECONDS
    assert STILL_CRASHED_SECONDS >= 12, "the second report of a crash comes 3.5 s after the first"
    _, client = settings(Place("127.0.0.1", 4200, Path()), {})
    assert client["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_SECONDS)
    assert TAG == PREEMPTIBLE
