"""The form of a flow: a config with every field optional, where blank means the preset's value.

`class CptChanges(changes_model(CptConfig, CPT)): ...` is what a flow takes as its `changes` parameter. Prefect turns it
into a form with the help, choices and bounds of the config's own fields; `applied` turns what was filled in into the
keys of `StageConfig.with_changes`, which validates the result as a whole config.
"""

import dataclasses
import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, SerializerFunctionWrapHandler, create_model
from pydantic import model_serializer as serializer
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

YES_NO = {"type": "string", "enum": ["yes", "no"]}  # a switch has no third state for "the preset's value"


class Changes(BaseModel):
    """A patch of a config: only the fields that were filled in count."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    _nullable: ClassVar[frozenset[str]] = frozenset()  # fields where an explicit null is a value, not a blank

    def _filled(self) -> dict[str, Any]:
        """The fields that were filled in, by name."""
        return {
            name: value
            for name in type(self).model_fields
            if name in self.model_fields_set
            and ((value := getattr(self, name)) is not None or name in self._nullable)
            and not (isinstance(value, Changes) and not value._filled())
        }

    @serializer(mode="wrap")
    def _only_filled(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        filled = self._filled()
        return {name: value for name, value in handler(self).items() if name in filled}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Fields without defaults and without `| None`: both would fill the form instead of leaving it blank."""
        form = handler.resolve_ref_schema(handler(schema))
        form["properties"] = {
            name: _blank(prop, keep_null=name in cls._nullable) for name, prop in form.get("properties", {}).items()
        }
        form["title"] = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", cls.__name__.removesuffix("Changes")).capitalize()
        return form


def applied(changes: BaseModel) -> dict[str, Any]:
    """What was filled in, as `StageConfig.with_changes` takes it: nested fields by dotted key."""
    flat: dict[str, Any] = {}
    for name, value in changes._filled().items() if isinstance(changes, Changes) else ():
        if isinstance(value, Changes):
            flat |= {f"{name}.{key}": inner for key, inner in applied(value).items()}
        else:
            flat[name] = value
    return flat


def changes_model(config: type, presets: Mapping[Any, Any] | None = None) -> type[Changes]:
    """A model with each field of `config` optional, nested configs (pydantic or dataclass) included.

    Args:
        presets: preset name -> config; their values are added to the help of each field.
    """
    return _model(config, {str(key): row for key, row in (presets or {}).items()}, config.__name__)


def _model(config: type, presets: Mapping[str, Any], name: str, *, nested: bool = False) -> type[Changes]:
    rows = {preset: row for preset, row in presets.items() if row is not None}
    fields: dict[str, Any] = {}
    nullable: set[str] = set()
    for key, info in _fields(config).items():
        annotation: Any
        annotation, takes_null = _without_none(info.annotation)
        values = {preset: getattr(row, key) for preset, row in rows.items()}
        if nested and _is_input(info) and rows and not any(values.values()):
            continue  # an input that no preset names is connected by the flow itself
        if _is_config(annotation):
            annotation = _model(annotation, values, annotation.__name__, nested=True)
            values = {preset: value for preset, value in values.items() if value is None}
        elif inner := _config_of_mapping(annotation, values):
            annotation = _mapping_model(f"{config.__name__.removesuffix('Config')}{key.title()}", inner, values)
            values = {}
        elif info.metadata:
            annotation = Annotated[annotation, *info.metadata]
        if takes_null:
            nullable.add(key)
        help_text = " ".join(part for part in (info.description, _shown(values)) if part)
        title = info.title or key.replace("_", " ").capitalize()
        fields[key] = (
            annotation | None,
            Field(default=None, title=title, description=help_text or None, json_schema_extra=_named_choices(info)),
        )
    made = create_model(f"{name.removesuffix('Config')}Changes", __base__=Changes, __module__=__name__, **fields)
    made.__doc__ = None
    made._nullable = frozenset(nullable)
    return made


def _config_of_mapping(annotation: Any, values: Mapping[str, Any]) -> type | None:
    """The config type of a `dict[str, Config]` whose keys the presets name, else None."""
    if get_origin(annotation) not in (dict, Mapping) or not any(values.values()):
        return None
    inner = get_args(annotation)[1]
    return inner if _is_config(inner) else None


def _mapping_model(name: str, inner: type, values: Mapping[str, Any]) -> type[Changes]:
    """One group of fields for each key that some preset has; adding a key is a new row of flows/presets.py."""
    keys = dict.fromkeys(key for value in values.values() for key in value or ())
    groups: dict[str, Any] = {}
    for key in keys:
        rows = {preset: value.get(key) for preset, value in values.items() if value}
        group: Any = _model(inner, rows, f"{name}{key.title().replace('-', '')}", nested=True)
        groups[key] = (group | None, Field(default=None, title=key))
    return create_model(f"{name}Changes", __base__=Changes, __module__=__name__, **groups)


def _blank(prop: JsonSchemaValue, *, keep_null: bool) -> JsonSchemaValue:
    """The schema of one field of the form: no default, no null unless null is a value, choices instead of switches."""
    prop = {key: value for key, value in prop.items() if key != "default"}
    variants = [variant for variant in prop.pop("anyOf", []) if keep_null or variant.get("type") != "null"]
    if len(variants) == 1:
        prop |= {key: value for key, value in variants[0].items() if key not in prop}
    elif variants:
        prop["anyOf"] = [_choices(variant) for variant in variants]
    return _choices(prop)


def _choices(prop: JsonSchemaValue) -> JsonSchemaValue:
    if prop.get("type") == "boolean":
        return prop | YES_NO
    if "const" in prop:
        return {key: value for key, value in prop.items() if key != "const"} | {"enum": [prop["const"]]}
    return prop


def _named_choices(info: FieldInfo) -> dict[str, Any]:
    """The names of a registry that a field declares, for a drop-down."""
    extra = info.json_schema_extra
    return {"enum": extra["enum"]} if isinstance(extra, dict) and "enum" in extra else {}


def _is_input(info: FieldInfo) -> bool:
    return isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("role") == "input"


def _is_config(annotation: Any) -> bool:
    return isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation))


def _fields(config: type) -> dict[str, FieldInfo]:
    if issubclass(config, BaseModel):
        return config.model_fields
    hints = get_type_hints(config, include_extras=True)
    found: dict[str, FieldInfo] = {}
    for field in dataclasses.fields(config):
        found[field.name] = FieldInfo.from_annotation(hints[field.name])
        found[field.name].description = found[field.name].description or field.metadata.get("description")
    return found


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) not in (Union, UnionType):
        return annotation, False
    members = [member for member in get_args(annotation) if member is not type(None)]
    return Union[tuple(members)], len(members) < len(get_args(annotation))  # noqa: UP007 - built from a tuple


def _shown(values: Mapping[str, Any]) -> str:
    """`[tiny: 0.3 · 9b: 0.1]`, or one value where all presets agree; nothing for values too long to read."""
    texts = {preset: _text(value) for preset, value in values.items()}
    if not texts or any(len(text) > 60 for text in texts.values()):
        return ""
    if len(texts) > 1 and len(set(texts.values())) == 1:
        return f"[all presets: {next(iter(texts.values()))}]"
    return "[" + " · ".join(f"{preset}: {text}" for preset, text in texts.items()) + "]"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list | set | frozenset):
        return ", ".join(_text(item) for item in value) or "empty"
    return str(value) or "empty"
