from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from callboard import context
from callboard.catalog.backoff import Growing, Steps, exponential
from callboard.catalog.contract import Contract, ContractOptions, contract_of
from callboard.catalog.quantities import size_bytes
from callboard.catalog.queue import Queue, isolated_queues
from callboard.catalog.terms import Terms
from callboard.errors import InvalidDeclaration, InvalidPayload


class Page(BaseModel):
    url: str


@pytest.fixture(autouse=True)
def fresh_queues() -> Iterator[None]:
    with isolated_queues():
        yield


def test_the_defaults_are_the_designs() -> None:
    terms = Contract("reports.build").terms()
    assert (terms.queue, terms.priority, terms.retries, terms.max_attempts) == ("default", 5, 3, 4)
    assert (terms.soft_limit_ms, terms.hard_limit_ms) == (540_000, 600_000)
    assert (terms.memory_limit_bytes, terms.expires_in_ms, terms.on_lost_lease) == (None, None, "continue")


def test_a_queue_fills_in_what_its_tasks_leave_open_even_when_it_is_declared_later() -> None:
    contract = Contract("build", queue="reports", hard_limit=20)
    assert contract.terms().retries == 3
    Queue("reports", retries=7, soft_limit=5, hard_limit=timedelta(seconds=10))
    terms = contract.terms()
    assert (terms.retries, terms.soft_limit_ms, terms.hard_limit_ms) == (7, 5_000, 20_000)
    assert Contract("other", queue="reports", retries=None).terms().max_attempts is None


def test_one_declared_limit_moves_the_one_that_was_left_open() -> None:
    assert Contract("a", hard_limit=10).terms().soft_limit_ms == 10_000
    assert Contract("a", soft_limit=3600).terms().hard_limit_ms == 3_600_000
    terms = Contract("a", soft_limit=None, hard_limit=None).terms()
    assert (terms.soft_limit_ms, terms.hard_limit_ms) == (None, None)


def test_a_list_of_delays_says_how_often_too() -> None:
    terms = Contract("a", delays=[1, timedelta(minutes=1), 0]).terms()
    assert terms.retries == 3
    assert [terms.retry_delay_ms(attempt, 0.9) for attempt in (1, 2, 3, 9)] == [1_000, 60_000, 0, 0]
    assert Contract("a", delays=[1], retries=5).terms().retries == 5


def test_growing_delays_double_up_to_their_cap() -> None:
    terms = Contract("a", delays=exponential(base=1, cap=10, jitter=0)).terms()
    assert [terms.retry_delay_ms(attempt, 0.0) for attempt in range(1, 7)] == [
        1000,
        2000,
        4000,
        8000,
        10_000,
        10_000,
    ]


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_a_growing_delay_stays_in_its_bounds(attempt: int, chance: float, jitter: float) -> None:
    delay = Growing(base_ms=500, cap_ms=60_000, jitter=jitter).delay_ms(attempt, chance)
    assert 1 <= delay <= 60_000


def test_capped_delays_still_spread() -> None:
    growing = Growing(base_ms=1000, cap_ms=8000)
    assert growing.delay_ms(30, 0.0) == 6000
    assert growing.delay_ms(30, 0.999) > 7900


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 10}, {"priority": -1}, {"priority": True}, {"retries": -1}, {"retries": 1.5},
        {"soft_limit": 0}, {"soft_limit": -1}, {"hard_limit": "10"}, {"soft_limit": 20, "hard_limit": 10},
        {"memory_limit": 0}, {"memory_limit": "lots"},
        {"expires_in": 0}, {"expires_in": timedelta(days=5000)},
        {"delays": []}, {"delays": "12"}, {"delays": [-1]}, {"on_lost_lease": "shrug"}, {"tags": "nightly"},
        {"tags": [""]}, {"retry_on": "OSError"}, {"permanent": [ValueError, "x"]},
        {"queue": "a b"}, {"queue": ""},
    ],
)  # fmt: skip
def test_a_bad_value_is_refused(options: ContractOptions) -> None:
    with pytest.raises(InvalidDeclaration):
        Contract("a", **options)


def test_a_bad_value_says_where_which_what_it_got_and_expected() -> None:
    with pytest.raises(
        InvalidDeclaration, match=r"test_contract\.py:\d+: task 'a' priority: expected 0 .* got 12"
    ):
        Contract("a", priority=12)


@pytest.mark.parametrize("name", ["", " a", "#a", "a\nb", "x" * 256])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidDeclaration, match="cannot name a task"):
        Contract(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (513, 513),
        ("512", 512),
        ("512B", 512),
        ("1k", 1000),
        ("1.5 MiB", 1_572_864),
        ("2GB", 2 * 10**9),
        ("1Gi", 2**30),
    ],
)
def test_sizes(text: int | str, expected: int) -> None:
    assert size_bytes(text, "memory_limit") == expected


def test_errors_are_classed_by_the_contract() -> None:
    everything = Contract("a")
    assert everything.retryable(ValueError())
    assert not everything.retryable(context.Discard())
    assert not everything.retryable(InvalidPayload("no"))
    chosen = Contract("a", retry_on=OSError, permanent=[FileNotFoundError])
    assert chosen.retryable(ConnectionError())
    assert not chosen.retryable(FileNotFoundError())
    assert not chosen.retryable(ValueError())


def test_binding_a_function_adds_schema_description_and_kind() -> None:
    async def fetch(url: str) -> None:
        """Fetch a page.

        Longer story.
        """

    contract = contract_of(fetch, queue="parsing", tags=["web"])
    assert contract.name == "fetch"
    assert contract.schema["required"] == ["url"]
    assert contract.is_async is True
    assert contract.description == "Fetch a page."
    assert contract.place.file == __file__
    assert contract.terms().tags == ("web",)


def test_a_contract_with_a_model_has_its_schema_before_any_code() -> None:
    contract = Contract("knowledge.parse", payload=Page)
    assert contract.schema["required"] == ["url"]

    def parse(page: Page) -> None: ...
    def two(page: Page, more: int) -> None: ...
    def none() -> None: ...
    def keyword(*, page: Page) -> None: ...

    assert contract.bind(parse).is_async is False
    for function in (two, none, keyword):
        with pytest.raises(InvalidDeclaration, match="one argument"):
            contract.bind(function)


def test_the_options_of_the_decorator_are_the_contracts_own() -> None:
    fields = set(Contract.__dataclass_fields__)
    assert set(ContractOptions.__annotations__) == fields - {
        "name",
        "payload",
        "adapter",
        "is_async",
        "place",
    }


def test_terms_survive_publishing() -> None:
    contract = Contract(
        "a", delays=exponential(base=2), retries=None, memory_limit="1GiB", expires_in=60, tags=["x"],
        retry_on=OSError, permanent=[KeyError], on_lost_lease="stop", priority=0,
    )  # fmt: skip
    for terms in (contract.terms(), Contract("b", delays=[1, 2]).terms()):
        assert Terms.from_document(terms.name, terms.queue, terms.document()) == terms
    assert contract.terms().retry_on == ("OSError",)
    assert isinstance(Contract("b", delays=[1, 2]).terms().backoff, Steps)
