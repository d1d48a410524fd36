"""How a stage declares its knobs: which fields are its identity, which name inputs, which only say how to run."""

import difflib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo


def input_field(description: str, **kwargs: Any) -> Any:
    """A field that names an input: `FLOW/PRESET[:OUTPUT]` or the URL of a finished artifact.

    It stays out of the semantic config, because an input enters the fingerprint by its content.
    """
    return Field(description=description, json_schema_extra={"role": "input"}, **kwargs)


def operational_field(description: str, **kwargs: Any) -> Any:
    """A field that changes where or how fast a stage runs but never what it makes: outside the fingerprint."""
    return Field(description=description, json_schema_extra={"role": "operational"}, **kwargs)


def _role(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("role", "semantic")) if isinstance(extra, dict) else "semantic"


class StageConfig(BaseModel):
    """Base of all stage configs: frozen, no unknown keys, split into semantic, input and operational fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, Mapping) else ():
            if key not in cls.model_fields:
                close = difflib.get_close_matches(str(key), cls.model_fields, 3)
                meant = f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(cls.model_fields)}."
                raise ValueError(f"{key!r} is not a knob of {cls.__name__}: a wrong name would change nothing. {meant}")
        return data

    def semantic(self) -> dict[str, Any]:
        """The fields that decide what the stage makes, JSON-able, nested configs included."""
        return _strip(self)

    def inputs(self) -> dict[str, str | tuple[str, ...]]:
        """Role -> reference of each input field that is set."""
        return {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if _role(field) == "input" and getattr(self, name)
        }

    def with_changes(self, changes: Mapping[str, Any]) -> Self:
        """This config with some fields replaced; validated as a whole, so cross-field rules hold.

        A key may be dotted (`clean.min_chars`) to reach into a nested config.
        """
        data = self.model_dump()
        for key, value in changes.items():
            *path, last = key.split(".")
            node = data
            for part in path:
                inner = node.get(part)
                if inner is None and part in node:
                    inner = node[part] = {}  # a group that is switched off is switched on with its defaults
                if not isinstance(inner, dict):
                    raise ValueError(
                        f"key {key!r}: {part!r} is not a group of fields; at this place there are {', '.join(node)}. "
                        "A dotted key names a field inside a group. Correct the key."
                    )
                node = inner
            if isinstance(value, Mapping) and isinstance(node.get(last), dict):
                node[last] = node[last] | dict(value)
            else:
                node[last] = value
        return type(self).model_validate(data)


def _strip(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {name: _strip(getattr(value, name)) for name, field in fields.items() if _role(field) == "semantic"}
    if isinstance(value, Mapping):
        return {str(key): _strip(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strip(item) for item in value]
    return value
