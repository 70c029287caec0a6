"""Checksums are those that Python computes; what cannot be computed so is refused."""

import hashlib
import json
import math
import struct
from collections import OrderedDict
from enum import IntEnum
from typing import Any

import pytest
from edgeward import EdgeSynchronizer, SyncState
from hypothesis import given, settings
from hypothesis import strategies as st

text = st.text(st.characters(exclude_categories=["Cs"]))
bits = st.binary(min_size=8, max_size=8).map(lambda raw: struct.unpack(">d", raw)[0])
decimals = st.builds(lambda digits, exponent: float(f"{digits}e{exponent}"), st.integers(-99999, 99999), st.integers(-30, 30))
integers = st.integers() | st.integers(-(10**40), 10**40)
scalars = st.none() | st.booleans() | integers | st.floats() | bits | decimals | text
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner) | st.tuples(inner, inner), max_leaves=30)


def of_python(data: dict[str, Any]) -> str:
    return hashlib.md5(json.dumps(data, sort_keys=True).encode()).hexdigest()


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(text, values))
def test_a_checksum_is_the_one_that_python_computes(data: dict[str, Any]) -> None:
    state = SyncState.from_data(data, 1)
    assert state.checksum == of_python(data)
    assert state.data is data and state.verify()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(text, values))
def test_data_comes_back_as_it_was_and_with_the_same_checksum(data: dict[str, Any]) -> None:
    sync = EdgeSynchronizer()
    state = sync.update_local(data)
    assert state.checksum == of_python(data) == of_python(state.data)
    assert json.dumps(state.data, sort_keys=True) == json.dumps(data, sort_keys=True)
    other = EdgeSynchronizer()
    assert other.apply_remote(state) and other.get_local_state() == sync.get_local_state() or any_nan(data)


def any_nan(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return any(any_nan(item) for item in (value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()))


class Level(IntEnum):
    LOW = 1


class Name(str):
    pass


def test_subclasses_are_what_they_are_made_of() -> None:
    data = OrderedDict(b=Level.LOW, a=Name("x"), c=type("F", (float,), {})(1.5), d=type("L", (list,), {})([1]), e=True)
    assert SyncState.from_data(data, 1).checksum == of_python(data)


def test_a_large_document_has_its_checksum() -> None:
    data = {f"sensor-{number}": {"value": number / 7, "tags": ["ä", "b\n"], "on": None} for number in range(5000)}
    assert SyncState.from_data(data, 1).checksum == of_python(data)


def nested(depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(depth - 1):
        data = {"a": data}
    return data


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"a": "\ud800"}, "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
        (nested(65), "deeper than 64"),
        ({"a": ENDLESS}, "deeper than 64"),
        ({1: "a"}, "keys must be str"),
        ({None: "a"}, "keys must be str"),
        ({"a": {True: 1}}, "keys must be str"),
        ({"a": 10**5000}, "digits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_reproduced_is_a_value_error(data: Any, why: str) -> None:
    for make in [lambda: SyncState.from_data(data, 1), lambda: EdgeSynchronizer().update_local(data)]:
        with pytest.raises(ValueError, match=why):
            make()
    assert not SyncState(1, data, "").verify()


def test_what_json_cannot_say_is_a_type_error_as_in_python() -> None:
    assert SyncState.from_data(nested(64), 1).checksum == of_python(nested(64))
    for data in [{"a": {1, 2}}, {"a": b"b"}, {"a": object()}]:
        with pytest.raises(TypeError) as ours:
            SyncState.from_data(data, 1)
        with pytest.raises(TypeError) as pythons:
            json.dumps(data)
        assert str(ours.value) == str(pythons.value).partition("\n")[0]
    with pytest.raises(TypeError, match="must be a dict"):
        SyncState.from_data([1], 1)  # type: ignore[arg-type]
