from __future__ import annotations

import json
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from callboard.catalog.payload import Payload
from callboard.errors import InvalidDeclaration, InvalidPayload


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Link(BaseModel):
    url: str
    depth: int = 1


class Loose(BaseModel):
    value: Any


class Node(BaseModel):
    name: str
    children: list[Node] = []


def build(
    month: str,
    rows: int = 100,
    since: date | None = None,
    colour: Colour = Colour.RED,
    link: Link | None = None,
    mode: Literal["fast", "slow"] = "fast",
) -> dict[str, Any]:
    return {"month": month, "rows": rows}


def pointers(payload: Payload, values: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidPayload) as caught:
        payload.encode(values)
    return [(problem.pointer, problem.code) for problem in caught.value.problems]


def test_the_schema_of_a_signature() -> None:
    schema = Payload.from_function(build).schema
    Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert schema["required"] == ["month"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["month"] == {"type": "string"}
    assert schema["properties"]["rows"] == {"type": "integer", "default": 100}
    assert schema["properties"]["mode"] == {"enum": ["fast", "slow"], "type": "string", "default": "fast"}
    assert set(schema["properties"]) == {"month", "rows", "since", "colour", "link", "mode"}


def test_the_schema_judges_json_as_the_adapter_does() -> None:
    payload = Payload.from_function(build)
    validator = Draft202012Validator(payload.schema)
    good = {"month": "2026-11", "link": {"url": "x"}, "since": "2026-11-22"}
    assert validator.is_valid(good)
    payload.arguments(good)
    for bad in ({}, {"month": "x", "more": 1}, {"month": "x", "mode": "odd"}, {"month": "x", "link": {}}):
        assert not validator.is_valid(bad)
        with pytest.raises(InvalidPayload):
            payload.arguments(bad)


def test_values_become_json_and_json_becomes_the_values_again() -> None:
    payload = Payload.from_function(build)
    values = {"month": "2026-11", "since": date(2026, 11, 22), "colour": Colour.BLUE, "link": Link(url="x")}
    encoded = payload.encode(values)
    assert json.loads(encoded) == {
        "month": "2026-11",
        "since": "2026-11-22",
        "colour": "blue",
        "link": {"url": "x"},
    }
    args, kwargs = payload.arguments(encoded)
    assert args == ()
    assert kwargs == values


def test_what_the_caller_leaves_out_is_left_to_the_body() -> None:
    payload = Payload.from_function(build)
    assert payload.encode({"month": "x"}) == b'{"month":"x"}'
    assert payload.arguments(b'{"month":"x"}') == ((), {"month": "x"})


def test_every_fault_is_told_with_its_place() -> None:
    payload = Payload.from_function(build)
    assert pointers(payload, {"rows": "many", "odd": 1, "link": {"depth": []}}) == [
        ("#/payload/month", "missing"),
        ("#/payload/rows", "int-parsing"),
        ("#/payload/link/url", "missing"),
        ("#/payload/link/depth", "int-type"),
        ("#/payload/odd", "extra-forbidden"),
    ]


def test_a_pointer_has_no_step_for_a_branch_of_a_union_and_is_escaped() -> None:
    def pick(what: int | dict[str, int]) -> None: ...

    found = pointers(Payload.from_function(pick), {"what": {"a/b~c": "x"}})
    assert ("#/payload/what/a~1b~0c", "int-parsing") in found
    assert {pointer for pointer, _ in found} == {"#/payload/what", "#/payload/what/a~1b~0c"}


def test_the_message_names_the_first_faults_and_counts_the_rest() -> None:
    def many(**rest: int) -> None: ...

    with pytest.raises(InvalidPayload, match=r"#/payload/k0: .*\(and 4 more\)"):
        Payload.from_function(many).encode({f"k{n}": "x" for n in range(9)})


def test_names_that_would_clash_with_a_model_are_ordinary_parameters() -> None:
    def odd(
        schema: str, copy: int, _private: bool, model_config: float, json: list[int], self: str
    ) -> None: ...

    payload = Payload.from_function(odd)
    names = ["schema", "copy", "_private", "model_config", "json", "self"]
    assert list(payload.schema["properties"]) == names
    values = {"schema": "s", "copy": 1, "_private": True, "model_config": 1.5, "json": [1], "self": "me"}
    assert payload.arguments(payload.encode(values)) == ((), values)


def test_keyword_arguments_open_the_object() -> None:
    def loose(first: int, **rest: Any) -> None: ...
    def typed(first: int, **rest: int) -> None: ...

    assert Payload.from_function(loose).schema["additionalProperties"] is True
    assert Payload.from_function(typed).schema["additionalProperties"] == {"type": "integer"}
    assert Payload.from_function(typed).arguments({"first": 1, "b": 2}) == ((), {"first": 1, "b": 2})
    assert pointers(Payload.from_function(typed), {"first": 1, "b": "x"}) == [("#/payload/b", "int-parsing")]


def test_without_parameters_only_the_empty_object_fits() -> None:
    def nothing() -> None: ...

    payload = Payload.from_function(nothing)
    assert payload.schema == {"type": "object", "properties": {}, "additionalProperties": False}
    assert payload.arguments(b"") == ((), {})
    assert pointers(payload, {"x": 1}) == [("#/payload/x", "extra-forbidden")]


def test_constraints_and_recursion_reach_the_schema() -> None:
    def walk(tree: Node, depth: Annotated[int, Field(ge=1, le=9, description="How deep.")] = 3) -> None: ...

    schema = Payload.from_function(walk).schema
    assert schema["properties"]["depth"] == {
        "type": "integer", "minimum": 1, "maximum": 9, "description": "How deep.", "default": 3,
    }  # fmt: skip
    assert Draft202012Validator(schema).is_valid({"tree": {"name": "a", "children": [{"name": "b"}]}})


def test_a_default_that_is_no_json_keeps_its_parameter_optional() -> None:
    def odd(when: datetime = datetime(2026, 1, 1), what: Any = object()) -> None: ...  # noqa: B008, DTZ001

    schema = Payload.from_function(odd).schema
    assert "required" not in schema
    assert "default" not in schema["properties"]["what"]


def test_a_payload_that_json_cannot_carry_is_refused() -> None:
    def anything(value: Any) -> None: ...

    payload = Payload.from_function(anything)
    for value in (float("nan"), float("inf"), object()):
        with pytest.raises(InvalidPayload, match="not JSON"):
            payload.encode({"value": value})
    with pytest.raises(InvalidPayload, match="not JSON"):
        Payload.from_model(Loose).encode(Loose(value=float("nan")))
    with pytest.raises(InvalidPayload):
        payload.arguments(b"{not json")


def test_a_null_and_words_like_numbers_are_carried() -> None:
    def anything(value: Any) -> None: ...

    payload = Payload.from_function(anything)
    for value in (None, "NaN", "null", ["Infinity", None], {"null": 1.5}, 2**70, "é\u2028", 1e300):
        encoded = payload.encode({"value": value})
        assert encoded == json.dumps({"value": value}, ensure_ascii=False, separators=(",", ":")).encode()
    for odd in ([1, float("nan")], {"deep": [float("-inf")]}, "\ud800"):
        with pytest.raises(InvalidPayload, match="not JSON"):
            payload.encode({"value": odd})


def test_a_model_is_the_one_argument() -> None:
    payload = Payload.from_model(Link)
    assert payload.schema["required"] == ["url"]
    assert payload.encode(Link(url="x")) == b'{"url":"x"}'
    assert payload.encode({"url": "x", "depth": 2}) == b'{"url":"x","depth":2}'
    assert payload.arguments(b'{"url":"x"}') == ((Link(url="x"),), {})
    assert pointers(payload, {"depth": 1}) == [("#/payload/url", "missing")]


def test_a_signature_without_schema_is_refused_with_its_place() -> None:
    class Odd: ...

    def opaque(what: Odd) -> None: ...

    opaque.__annotations__["what"] = Odd

    def positional(a: int, /) -> None: ...
    def star(*rest: int) -> None: ...
    def unknown(what: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for function in (opaque, positional, star, unknown):
        with pytest.raises(InvalidDeclaration, match=r"test_payload\.py:\d+: "):
            Payload.from_function(function)


def test_functions_of_another_platform_are_taken_as_they_are() -> None:
    class Odd: ...

    def actor(what: Odd, count: int, *rest: int) -> None: ...

    actor.__annotations__["what"] = Odd

    def unknown(what: Nowhere, n: int = 1) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert Payload.from_function(actor, lenient=True).schema["required"] == ["what", "count"]
    assert Payload.from_function(unknown, lenient=True).schema["properties"] == {
        "what": {},
        "n": {"default": 1},
    }


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_any_json_object_survives_the_way(document: dict[str, Any]) -> None:
    assert OPEN.arguments(OPEN.encode(document)) == ((), document)


def _open(**rest: Any) -> None: ...


OPEN = Payload.from_function(_open)
