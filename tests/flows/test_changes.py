from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import Field, ValidationError

from flows.changes import applied, changes_model
from tasks.config import StageConfig, input_field, operational_field


class Shape(StrEnum):
    COSINE = "cosine"
    LINEAR = "linear"


@dataclass(frozen=True, kw_only=True)
class Mesh:
    data: int = field(default=1, metadata={"description": "Data-parallel ways."})
    fsdp: int = 1


class Optimizer(StageConfig):
    data: str = input_field("Connected by the flow.", default="")
    peak: float = Field(default=3e-4, gt=0, le=1, description="Peak learning rate.")
    shape: Shape = Field(default=Shape.COSINE, description="Shape of the schedule.")


class KnobsConfig(StageConfig):
    base: str = input_field("The model to start from.", default="pretrain/tiny")
    steps: int = Field(default=10, ge=1, le=1000, description="Training steps.")
    kind: Literal["text", "chat"] = Field(default="text", title="Kind of data")
    tied: bool = Field(default=True, description="Tie the embeddings.")
    cap: float | None = Field(default=30.0, ge=1, description="Soft cap, or none.")
    languages: tuple[str, ...] = ("ja", "en")
    optimizer: Optimizer = Optimizer()
    mesh: Mesh = Mesh()
    workers: int = operational_field("Worker processes.", default=2, ge=0)

    launcher: Literal["local"] = "local"
    recipe: str = Field(default="qa", json_schema_extra={"enum": ["qa", "rewrite"]})
    recipes: dict[str, Optimizer] = Field(default={}, description="By name.")
    model_seed: int = 0
    weights: dict[str, float] = Field(default={}, description="A plain mapping.")


PRESETS = {
    "tiny": KnobsConfig(recipes={"qa-ja": Optimizer(), "code": Optimizer(peak=0.5)}),
    "9b": KnobsConfig(steps=1000, recipes={"qa-ja": Optimizer()}),
}


class KnobsChanges(changes_model(KnobsConfig, PRESETS)):
    pass


BLANK = KnobsChanges()


def form(preset: str = "tiny", changes: KnobsChanges = BLANK) -> None:
    """A flow.

    Args:
        changes: Blank keeps the preset's value.
    """


SCHEMA: dict[str, Any] = parameter_schema(form).model_dump_for_openapi()
PROPERTIES = SCHEMA["definitions"]["KnobsChanges"]["properties"]


def test_every_field_of_the_config_is_in_the_form_and_none_is_required():
    assert list(PROPERTIES) == list(KnobsConfig.model_fields)
    assert not any("required" in SCHEMA["definitions"][name] for name in ("KnobsChanges", "OptimizerChanges"))


def test_no_field_has_a_default_because_a_default_would_fill_the_form():
    assert not [name for name, prop in PROPERTIES.items() if "default" in prop]
    assert SCHEMA["properties"]["changes"]["default"] == {}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        pytest.param("steps", {"type": "integer", "minimum": 1, "maximum": 1000}, id="bounds are kept"),
        pytest.param("kind", {"type": "string", "enum": ["text", "chat"]}, id="a Literal is a select"),
        pytest.param("kind", {"title": "Kind of data"}, id="a title is kept"),
        pytest.param("tied", {"enum": ["yes", "no"]}, id="a boolean can be left blank"),
        pytest.param("cap", {"anyOf": [{"minimum": 1, "type": "number"}, {"type": "null"}]}, id="null is a value"),
        pytest.param("launcher", {"enum": ["local"]}, id="a single choice is a select too"),
        pytest.param("recipe", {"type": "string", "enum": ["qa", "rewrite"]}, id="names of a registry are a select"),
        pytest.param("languages", {"type": "array"}, id="a tuple is a list of items"),
        pytest.param("workers", {"description": "Worker processes. [all presets: 2]"}, id="operational fields too"),
        pytest.param("steps", {"description": "Training steps. [tiny: 10 · 9b: 1,000]"}, id="help shows the presets"),
    ],
)
def test_a_field_keeps_its_help_choices_and_bounds(name, part):
    assert PROPERTIES[name] | part == PROPERTIES[name]


def test_nested_configs_are_forms_with_every_field_optional_too():
    optimizer = SCHEMA["definitions"]["OptimizerChanges"]["properties"]
    assert optimizer["peak"]["exclusiveMinimum"] == 0
    assert SCHEMA["definitions"]["Shape"]["enum"] == ["cosine", "linear"]
    mesh = SCHEMA["definitions"]["MeshChanges"]["properties"]
    assert mesh["data"]["description"] == "Data-parallel ways. [all presets: 1]"


def test_an_input_that_no_preset_names_is_offered_only_on_the_outermost_level():
    assert "data" not in SCHEMA["definitions"]["OptimizerChanges"]["properties"]
    assert "base" in PROPERTIES
    with pytest.raises(ValidationError, match="Extra inputs"):
        KnobsChanges.model_validate({"optimizer": {"data": "ingest/tiny:ja"}})


def test_groups_are_titled_with_words():
    assert SCHEMA["definitions"]["OptimizerChanges"]["title"] == "Optimizer"
    assert SCHEMA["definitions"]["KnobsRecipesChanges"]["title"] == "Knobs recipes"


def test_a_mapping_of_configs_is_one_group_for_each_name_in_the_presets():
    groups = SCHEMA["definitions"]["KnobsRecipesChanges"]["properties"]
    assert list(groups) == ["qa-ja", "code"]
    changes = KnobsChanges.model_validate({"recipes": {"qa-ja": {"peak": 0.25}}})
    assert applied(changes) == {"recipes.qa-ja.peak": 0.25}
    config = PRESETS["tiny"].with_changes(applied(changes))
    assert config.recipes == {"qa-ja": Optimizer(peak=0.25), "code": Optimizer(peak=0.5)}
    with pytest.raises(ValidationError, match="Extra inputs"):
        KnobsChanges.model_validate({"recipes": {"qa-fr": {}}})


@pytest.mark.parametrize(
    ("filled", "expected"),
    [
        pytest.param({}, {}, id="all blank"),
        pytest.param({"steps": 5}, {"steps": 5}, id="a number"),
        pytest.param({"steps": None, "kind": None}, {}, id="null is blank where null is no value"),
        pytest.param({"cap": None}, {"cap": None}, id="null is kept where it is a value"),
        pytest.param({"tied": "no"}, {"tied": False}, id="no is false"),
        pytest.param({"optimizer": {}, "mesh": {"data": None}}, {}, id="empty groups are blank"),
        pytest.param({"optimizer": {"shape": "linear"}}, {"optimizer.shape": Shape.LINEAR}, id="nested"),
        pytest.param({"weights": {"ja": 2}}, {"weights": {"ja": 2.0}}, id="a plain mapping is filled in as JSON"),
        pytest.param({"mesh": {"fsdp": 4}}, {"mesh.fsdp": 4}, id="nested dataclass"),
    ],
)
def test_applied_names_only_what_was_filled_in(filled, expected):
    changes = KnobsChanges.model_validate(filled)
    assert applied(changes) == expected
    config = KnobsConfig().with_changes(applied(changes))
    for key, value in expected.items():
        got: Any = config
        for part in key.split("."):
            got = getattr(got, part)
        assert got == value


def test_blank_changes_give_the_preset_itself():
    for preset in PRESETS.values():
        assert preset.with_changes(applied(KnobsChanges())) == preset


def test_what_the_form_sends_survives_a_round_trip_as_json():
    changes = KnobsChanges.model_validate({"steps": 7, "cap": None, "optimizer": {"peak": 0.5}})
    again = KnobsChanges.model_validate_json(changes.model_dump_json())
    assert applied(again) == applied(changes) == {"steps": 7, "cap": None, "optimizer.peak": 0.5}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        pytest.param({"changes": {"steps": 0}}, "less than the minimum", id="below the bound"),
        pytest.param({"changes": {"step": 1}}, "'step' was unexpected", id="unknown key"),
        pytest.param({"changes": {"optimizer": {"lr": 1}}}, "'lr' was unexpected", id="unknown nested key"),
        pytest.param({"changes": {"kind": "image"}}, "not one of", id="not a choice"),
        pytest.param({"changes": {"steps": "many"}}, "not valid", id="wrong type"),
    ],
)
def test_the_server_and_the_flow_both_refuse_a_bad_form(parameters, message):
    assert message in str([error.message for error in validate(parameters, SCHEMA)])
    with pytest.raises(ValidationError):
        KnobsChanges.model_validate(parameters["changes"])


@pytest.mark.parametrize("parameters", [{}, {"preset": "9b"}, {"changes": {"steps": 1000, "tied": "yes", "cap": None}}])
def test_the_server_accepts_a_good_form(parameters):
    assert validate(parameters, SCHEMA) == []
