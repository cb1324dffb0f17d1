"""The JSON schema of a config, for editors: keys, types, allowed words, and what a searched number may look like."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from search.config.fill import preset_files
from search.config.models import _auto_or_count, _parse_domain, _student
from search.config.root import Config
from search.kinds import KINDS
from spaces.methods import names
from spaces.objectives import COSTS, METRICS


def config_schema() -> dict[str, Any]:
    """Return the schema of what may stand in a config file (draft 2020-12)."""
    schema = Config.model_json_schema(schema_generator=_Schema)
    sections = schema["$defs"]
    sections["Space"]["properties"]["preset"]["enum"] = sorted(preset_files())
    sections["Space"]["properties"]["methods"]["items"]["enum"] = list(names())
    sections["Task"]["properties"]["metric"]["enum"] = sorted({m for kind in KINDS.values() for m in kind.metrics})
    schema["properties"]["objectives"]["items"]["examples"] = [*METRICS, *COSTS]
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "A paredown search"}


class _Schema(GenerateJsonSchema):
    """Also describes what our own functions read."""

    def function_plain_schema(self, schema: core_schema.PlainValidatorFunctionSchema) -> JsonSchemaValue:
        """Return what a searched value, or a count that may be ``auto``, can look like."""
        function: Any = schema["function"]["function"]
        if function is _auto_or_count:
            return {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}
        rules = function.keywords if isinstance(function, partial) and function.func is _parse_domain else {}
        found = _domain(rules)
        return found if rules else {"anyOf": [{"const": "keep"}, {"type": "null"}, *found["anyOf"]]}

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        """Return what ``space.student`` may be, as it is written."""
        inner = super().function_before_schema(schema)
        if schema["function"]["function"] is not _student:
            return inner
        lstm = {"type": "object", "properties": {"lstm": inner}, "required": ["lstm"], "additionalProperties": False}
        return {"anyOf": [{"const": "same"}, lstm]}


def _domain(rules: dict[str, Any]) -> dict[str, Any]:
    """Return the ways to write a value that may be searched: fixed, a range, or choices."""
    if "allowed" in rules:
        one: dict[str, Any] = {"enum": list(rules["allowed"])}
    else:
        one = {"type": "integer" if rules.get("whole") else "number"}
        one |= {name: rules[name] for name in ("minimum", "maximum") if name in rules}
    choices = {
        "type": "object",
        "properties": {"choices": {"type": "array", "items": one, "minItems": 1}},
        "required": ["choices"],
        "additionalProperties": False,
    }
    if "allowed" in rules:
        return {"anyOf": [one, choices]}
    ends = {
        "type": "object",
        "properties": {"low": one, "high": one, "log": {"type": "boolean"}},
        "required": ["low", "high"],
        "additionalProperties": False,
    }
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 2, "maxItems": 2}, ends, choices]}
