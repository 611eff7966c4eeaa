"""Payloads: the JSON object that a task is submitted with, and its schema, from a signature or a model.

A payload is checked before it is sent (Python values in, JSON out) and read again where the body
runs (JSON in, the body's arguments out), through the same adapter both times.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError

from callboard.catalog.place import place_of
from callboard.errors import InvalidDeclaration, InvalidPayload, Problem


class _Schema(GenerateJsonSchema):
    """Leaves out the titles that Pydantic derives from names: a form builds its own labels."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class Payload:
    """The adapter of one task: schema, `encode` for submitting, `arguments` for running."""

    def __init__(
        self, model: type[BaseModel], names: Mapping[str, str] | None, schema: dict[str, Any]
    ) -> None:
        self.model = model
        self.schema = schema
        # Field name to parameter name; None when the body takes the model itself.
        self._names = names
        # Dumps by the model's own rules, but for NaN: in a place of type Any it would become null in silence.
        self._carrier = create_model(
            "_Carrier", __config__=ConfigDict(ser_json_inf_nan="constants"), payload=(model, ...)
        )
        self._to_json = TypeAdapter(dict[str, model]).serializer.to_json  # type: ignore[valid-type]

    @classmethod
    def from_model(cls, model: type[BaseModel]) -> Payload:
        """For a body with one parameter, which receives the model."""
        return cls(model, None, model.model_json_schema(schema_generator=_Schema))

    @classmethod
    def from_function(cls, function: Callable[..., Any], *, lenient: bool = False) -> Payload:
        """From a signature: every parameter is a property; without `**kwargs` there are no others.

        A parameter without annotation takes any JSON. `lenient` (for functions that were written for
        another platform) lets `*args` pass and takes any JSON where an annotation cannot be resolved
        or described; otherwise these raise InvalidDeclaration with the function's place.
        """
        try:
            hints = typing.get_type_hints(function, include_extras=True)
            return cls._from_signature(function, hints, lenient)
        except (PydanticUserError, NameError, TypeError) as error:
            if lenient:
                return cls._from_signature(function, {}, lenient)
            raise InvalidDeclaration(
                f"{place_of(function)}: the parameters of {_name(function)} have no JSON Schema: "
                f"{str(error).splitlines()[0]}"
            ) from error

    @classmethod
    def _from_signature(
        cls, function: Callable[..., Any], hints: Mapping[str, Any], lenient: bool
    ) -> Payload:
        fields: dict[str, Any] = {}
        names: dict[str, str] = {}
        rest: Any = None
        for parameter in inspect.signature(function).parameters.values():
            annotation = hints.get(parameter.name, Any)
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = annotation
            elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
                if not lenient:
                    raise InvalidDeclaration(
                        f"{place_of(function)}: a payload is an object, so keywords alone must be enough to "
                        f"call {_name(function)}; {parameter.name!r} is positional."
                    )
            else:
                # An alias keeps names such as `copy`, `schema` and `_id` from meeting the model's own.
                field = f"f{len(names)}"
                names[field] = parameter.name
                fields[field] = (annotation, _field(parameter))
        model = create_model(f"{function.__name__}_payload", __base__=_base(rest), **fields)
        schema = model.model_json_schema(schema_generator=_Schema)
        schema.pop("title", None)
        schema.setdefault("properties", {})
        schema.setdefault("additionalProperties", rest is not None)
        return cls(model, names, schema)

    def encode(self, values: Mapping[str, Any] | BaseModel) -> bytes:
        """Python values as the JSON object to submit. Raises InvalidPayload with every fault's place."""
        try:
            # What the caller left out stays out: the body's own default applies when it runs.
            model = self.model.__pydantic_validator__.validate_python(values)
            quick = self._to_json({"": model}, by_alias=True, exclude_unset=True)
            # What Pydantic may write for a float that JSON does not have; a real null or text looks the same.
            if not (b"null" in quick or b"NaN" in quick or b"Infinity" in quick):
                return quick[4:-1]  # without {"": and }
            carrier = self._carrier.model_construct(payload=model)
            document = carrier.model_dump(mode="json", by_alias=True, exclude_unset=True)["payload"]
            text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            encoded = text.encode()
        except ValidationError as error:
            raise _invalid(error, values) from error
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise InvalidPayload(f"The payload is not JSON: {error}") from error
        return encoded

    def arguments(self, payload: bytes | Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The body's positional and keyword arguments from a JSON object. Raises InvalidPayload."""
        try:
            raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            model = self.model.model_validate_json(raw or b"{}")
        except ValidationError as error:
            raise _invalid(error, payload) from error
        except (TypeError, ValueError) as error:
            raise InvalidPayload(f"The payload is not JSON: {error}") from error
        if self._names is None:
            return (model,), {}
        given = {
            self._names[field]: getattr(model, field)
            for field in self._names
            if field in model.model_fields_set
        }
        return (), {**given, **(model.__pydantic_extra__ or {})}


def _name(function: Callable[..., Any]) -> str:
    return repr(getattr(function, "__name__", "a task"))


def _base(rest: Any) -> type[BaseModel]:
    """The model to build on: closed, or with other properties of one type (that of `**kwargs`)."""
    namespace: dict[str, Any] = {
        "__module__": __name__,
        "model_config": ConfigDict(extra="forbid" if rest is None else "allow"),
    }
    if rest is not None:
        namespace["__annotations__"] = {"__pydantic_extra__": dict[str, rest]}
    return type("_Base", (BaseModel,), namespace)


def _field(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    if default is parameter.empty:
        return Field(alias=parameter.name)
    try:
        json.dumps(default, allow_nan=False)
    except (TypeError, ValueError):
        # The schema cannot show it; a factory keeps it optional.
        return Field(alias=parameter.name, default_factory=lambda: default)
    return Field(default, alias=parameter.name)


def _invalid(error: ValidationError, values: object) -> InvalidPayload:
    faults = error.errors(include_url=False, include_context=False)
    problems = tuple(
        Problem(
            _pointer(fault["loc"], values, str(fault["type"])),
            str(fault["msg"]),
            str(fault["type"]).replace("_", "-"),
        )
        for fault in faults
    )
    told = "; ".join(f"{problem.pointer}: {problem.detail}" for problem in problems[:5])
    more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
    return InvalidPayload(f"The payload does not fit the task: {told}{more}", problems)


def _pointer(location: tuple[int | str, ...], values: object, kind: str) -> str:
    """A JSON pointer into the payload; steps that are names of a union's branches are no part of it."""
    here: Any = values
    if isinstance(values, bytes):
        try:
            here = json.loads(values)
        except ValueError:
            here = None
    words: list[str] = []
    for number, step in enumerate(location):
        if _has(here, step):
            here = here[step]
        elif number > 0 and not (kind == "missing" and number == len(location) - 1):
            continue
        words.append(str(step).replace("~", "~0").replace("/", "~1"))
    return "#/payload" + "".join(f"/{word}" for word in words)


def _has(here: Any, step: int | str) -> bool:
    if isinstance(here, Mapping):
        return step in here
    return isinstance(here, list | tuple) and isinstance(step, int) and step < len(here)
