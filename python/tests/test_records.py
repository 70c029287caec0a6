"""The classes that hold fields behave as dataclasses do."""

import copy
import dataclasses
import inspect
import pickle
import sys
from datetime import datetime, timedelta
from typing import Any

import pytest
from edgeward import (
    Client,
    EdgeCluster,
    EdgeFunction,
    EdgeMetrics,
    EdgeNode,
    EdgeNodeStatus,
    EdgeRuntime,
    EdgeSynchronizer,
    InvocationRecord,
    SyncState,
)


def double(number: int) -> int:
    return 2 * number


RECORDS: list[Any] = [
    EdgeNode("edge-01", "warehouse", capabilities=["gpu"], metadata={"rack": 7}),
    EdgeFunction("fn-1", "double", double, environment={"A": "b"}),
    SyncState.from_data({"a": [1, None]}, 3),
    InvocationRecord("fn-1", "edge-01", 42.5, True),
    InvocationRecord("fn-1", "edge-01", 42.5, False, error="boom"),
]


def test_a_node_has_the_defaults_of_the_specification() -> None:
    before = datetime.now()
    node = EdgeNode(id="edge-01", name="n")
    assert (node.location, node.status, node.capabilities, node.metadata) == ("", EdgeNodeStatus.ONLINE, [], {})
    assert node.last_heartbeat.tzinfo is None and before <= node.last_heartbeat <= datetime.now()


def test_a_function_has_the_defaults_of_the_specification() -> None:
    function = EdgeFunction(id="fn-1", name="n", handler=double)
    assert (function.memory_mb, function.timeout_seconds, function.environment) == (128, 30, {})
    assert type(function.timeout_seconds) is int and function.handler is double


def test_a_record_of_an_invocation_is_of_now() -> None:
    before = datetime.now()
    record = InvocationRecord(function_id="fn-1", node_id="edge-01", duration_ms=42.5, success=True)
    after = datetime.now()
    assert record.error == "" and record.timestamp.tzinfo is None
    assert before - timedelta(microseconds=1) <= record.timestamp <= after
    assert record.timestamp is record.timestamp


def test_fields_are_positional_and_named() -> None:
    node = EdgeNode("edge-01", "n", "Berlin", EdgeNodeStatus.SYNCING, ["gpu"], {"a": 1}, datetime(2026, 1, 2))
    assert node == EdgeNode(
        name="n",
        id="edge-01",
        last_heartbeat=datetime(2026, 1, 2),
        metadata={"a": 1},
        capabilities=["gpu"],
        status=EdgeNodeStatus.SYNCING,
        location="Berlin",
    )
    for wrong in [lambda: EdgeNode("edge-01"), lambda: EdgeNode("a", "b", nme="c"), lambda: EdgeFunction("a", "b"), lambda: InvocationRecord()]:  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            wrong()


def test_defaults_are_made_anew() -> None:
    first, second = EdgeNode("a", "a"), EdgeNode("b", "b")
    first.capabilities.append("gpu")
    first.metadata["k"] = 1
    assert first.capabilities == ["gpu"] and second.capabilities == [] and second.metadata == {}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_dataclasses_to_the_standard_library(record: Any) -> None:
    assert dataclasses.is_dataclass(record)
    names = [field.name for field in dataclasses.fields(record)]
    assert type(record).__match_args__ == tuple(name for name, field in type(record).__dataclass_fields__.items() if not field.kw_only)
    assert dataclasses.asdict(record).keys() == set(names)
    changed = dataclasses.replace(record, **{names[0]: "other"})
    assert changed != record and getattr(changed, names[0]) == "other"
    assert repr(record).startswith(f"{type(record).__name__}({names[0]}={getattr(record, names[0])!r}, ")
    with pytest.raises(TypeError, match="unhashable"):
        hash(record)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_copies_and_pickles_are_equal_and_apart(record: Any) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(record, protocol)) == record
    for other in [copy.copy(record), copy.deepcopy(record)]:
        assert other == record and other is not record and type(other) is type(record)
        name = dataclasses.fields(record)[0].name
        setattr(other, name, "changed")
        assert other != record


def test_a_copy_shares_its_lists_and_a_deep_copy_does_not() -> None:
    node = EdgeNode("a", "a", capabilities=["gpu"])
    assert copy.copy(node).capabilities is node.capabilities
    assert copy.deepcopy(node).capabilities is not node.capabilities


def test_other_attributes_stay_with_a_node() -> None:
    node = EdgeNode("a", "a")
    node.extra = 1  # type: ignore[attr-defined]
    assert copy.copy(node).extra == 1  # type: ignore[attr-defined]


def test_a_subclass_may_add_fields() -> None:
    @dataclasses.dataclass
    class Camera(EdgeNode):
        lens: str = "wide"

    camera = Camera("a", "a", lens="tele")
    assert (camera.id, camera.lens, camera.status) == ("a", "tele", EdgeNodeStatus.ONLINE)
    assert copy.copy(camera) == camera and "lens='tele'" in repr(camera)


@dataclasses.dataclass
class Regional(InvocationRecord):
    region: str = "eu"


class Plain(InvocationRecord):
    """Nothing of its own."""


class Handwritten(InvocationRecord):
    def __init__(self, region: str, **fields: Any) -> None:
        super().__init__(**fields)
        self.region = region


@dataclasses.dataclass
class Nested(Regional):
    rack: int = 0


FIELDS: dict[str, Any] = {"function_id": "fn-1", "node_id": "edge-01", "duration_ms": 1.5, "success": True}


@pytest.mark.parametrize(
    "record",
    [
        Regional("fn-1", "edge-01", 1.5, True, region="us"),
        Plain("fn-1", "edge-01", 1.5, True, datetime(2026, 1, 2), "boom"),
        Handwritten("us", **FIELDS),
        Nested("fn-1", "edge-01", 1.5, True, datetime(2026, 1, 2), "", "us", 7),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_of_an_invocation_may_be_subclassed_in_any_way(record: Any) -> None:
    assert {name: getattr(record, name) for name in FIELDS} == FIELDS
    assert getattr(record, "region", "us") == "us" and record.timestamp.tzinfo is None
    for other in [copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))]:
        assert other == record and other is not record and vars(other) == vars(record)
    metrics = EdgeMetrics()
    metrics.record(record)
    assert metrics.total_invocations("fn-1") == 1


def test_a_subclass_of_a_record_demands_its_fields() -> None:
    assert dataclasses.replace(Nested(**FIELDS), rack=3) != Nested(**FIELDS)
    for wrong in [lambda: Plain("fn-1"), lambda: Regional(**FIELDS, colour="red")]:  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            wrong()


def test_what_fields_there_are_is_told_to_those_who_look() -> None:
    for cls in [EdgeNode, EdgeFunction, SyncState, InvocationRecord]:
        assert list(inspect.signature(cls).parameters) == [field.name for field in dataclasses.fields(cls)]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="`copy.replace` is of Python 3.13")
def test_copy_replace_makes_a_changed_copy() -> None:
    assert copy.replace(EdgeNode("a", "a"), name="b").name == "b"  # type: ignore[attr-defined]


def test_the_representation_shows_no_secret() -> None:
    assert "secret" not in repr(EdgeFunction("f", "f", double, environment={"KEY": "secret"}))


def test_what_is_raised_has_a_kind() -> None:
    node = EdgeNode("edge-01", "n")
    for wrong, kind in [
        (lambda: EdgeRuntime(node).invoke("absent"), "not_found"),
        (lambda: EdgeRuntime(EdgeNode("bad id", "n")), "invalid_input"),
        (lambda: EdgeCluster().list_nodes("asleep"), "invalid_input"),  # type: ignore[arg-type]
        (lambda: EdgeCluster().deploy_to_node("absent", EdgeFunction("f", "f", double)), "not_found"),
        (lambda: SyncState.from_data({1: 1}, 1), "invalid_input"),  # type: ignore[dict-item]
        (lambda: SyncState.from_data({"a": "\ud800"}, 1), "invalid_input"),
        (lambda: EdgeSynchronizer().apply_remote(SyncState(1, {}, "")), "invalid_input"),
        (lambda: EdgeSynchronizer().confirm_sync(-1), "invalid_input"),
        (lambda: Client("nowhere"), "invalid_input"),
    ]:
        with pytest.raises(ValueError) as caught:
            wrong()
        assert getattr(caught.value, "kind") == kind, caught.value


def test_a_record_of_another_class_is_not_equal() -> None:
    assert EdgeNode("a", "a") != "a"
    assert InvocationRecord("f", "n", 1.0, True) != SyncState(1, {}, "")


def test_a_status_is_an_enumeration_of_lower_case_words() -> None:
    assert [status.value for status in EdgeNodeStatus] == ["online", "offline", "degraded", "syncing"]
    assert EdgeNodeStatus("online") is EdgeNodeStatus.ONLINE
