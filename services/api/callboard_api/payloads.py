"""Payloads against the JSON Schemas that workers published; compiled once for each version of a schema."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from callboard.catalog.published import PublishedTask
from callboard.errors import Problem
from callboard_api.problems import MOST_ERRORS, Rejected, escape

logger = logging.getLogger("callboard.api")

#: Compiled schemas that are kept; a deployment has tens or hundreds of tasks.
_KEPT: Final = 2000
_LONGEST_DETAIL: Final = 300


class PayloadChecker:
    """Validators by the digest of their schema."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[str, Draft202012Validator] = OrderedDict()

    def faults(self, task: PublishedTask, payload: Mapping[str, Any], pointer: str) -> list[Problem]:
        """Every fault of a payload, with its place below `pointer`; none when it fits.

        Raises Rejected (500) for a schema that is none: its worker's fault, not the client's.
        """
        validator = self._compiled.get(task.digest) or self._compile(task)
        try:
            return list(islice(_faults(validator, payload, pointer), MOST_ERRORS))
        except Unresolvable as error:
            raise _unusable(task, f"{error}") from error

    def _compile(self, task: PublishedTask) -> Draft202012Validator:
        schema = dict(task.schema)
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise _unusable(task, error.message) from error
        # An empty registry: a `$ref` to somewhere on the net must not make this process fetch it.
        validator = Draft202012Validator(schema, registry=Registry(), format_checker=_FORMATS)
        self._compiled[task.digest] = validator
        if len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return validator


_FORMATS: Final = FormatChecker()


def _faults(validator: Draft202012Validator, payload: Mapping[str, Any], pointer: str) -> Iterator[Problem]:
    for error in validator.iter_errors(payload):
        # Of the branches of an anyOf, the one that came nearest says what a person can mend.
        nearest = (best_match([error]) or error) if error.context else error
        place = pointer + "".join(f"/{escape(str(step))}" for step in nearest.absolute_path)
        for step, detail in _told(nearest):
            yield Problem(f"{place}/{escape(step)}" if step else place, detail, _code(nearest))


def _told(error: ValidationError) -> Iterator[tuple[str, str]]:
    """(step below the error's place, sentence)."""
    match error.validator:
        case "required" if isinstance(error.instance, dict):
            wanted: Any = error.validator_value
            # jsonschema raises one error for each missing name; its message opens with it.
            for name in wanted:
                if name not in error.instance and error.message.startswith(repr(name)):
                    yield name, f"The field {name!r} is required."
                    return
        case "additionalProperties" if isinstance(error.instance, dict) and error.validator_value is False:
            schema = error.schema if isinstance(error.schema, dict) else {}
            known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
            for name in error.instance:
                if name not in known and not any(re.search(pattern, name) for pattern in patterns):
                    yield name, f"The field {name[:60]!r} is not known."
            return
    message = error.message
    yield "", message if len(message) <= _LONGEST_DETAIL else f"{message[:_LONGEST_DETAIL]}…"


def _code(error: ValidationError) -> str:
    word = str(error.validator)
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in word)


def _unusable(task: PublishedTask, told: str) -> Rejected:
    logger.error(
        "The schema that worker %s published for %r cannot be used: %s", task.worker, task.name, told
    )
    return Rejected(
        "internal", f"The JSON Schema that workers published for {task.name!r} cannot be used: {told[:300]}"
    )
