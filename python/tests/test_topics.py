"""Topics in one process: publishing, reading and following, and triggers that call handlers and components."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgeward import EdgeFunction, EdgeNode, EdgeRuntime, Topics

CELSIUS = Path(__file__).parents[2] / "functions/built/celsius.wasm"
AT_ONCE = {"pause_min_ms": 1, "pause_max_ms": 1}


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.01)


def runtime_with(function_id: str, handler: Callable[..., Any], **how: Any) -> EdgeRuntime:
    runtime = EdgeRuntime(EdgeNode("edge-01", "warehouse"))
    runtime.deploy(EdgeFunction(function_id, function_id, handler, **how))
    return runtime


def test_what_is_published_is_read_as_the_client_tells_it() -> None:
    topics = Topics()
    assert topics.publish("a/b", "21.5", key="k", retain=True) == 1
    assert topics.publish("a/c", b'{"t": 1.50}', content_type="application/json") == 2
    assert topics.publish("a/c", bytearray(b"\xff\x00")) == 3
    page = topics.messages("a/#")
    first, second, third = page["messages"]
    published_at = first.pop("published_at")
    assert published_at.endswith("Z") and first == {"position": 1, "topic": "a/b", "key": "k", "data": "21.5"}
    assert page["before"] is None and second["data"] == {"t": 1.5} and second["content_type"] == "application/json"
    assert third["data_base64"] == "/wA=" and "data" not in third
    newer = topics.messages("#", from_position=2, limit=1)
    assert ([message["position"] for message in newer["messages"]], newer["next"], newer["lost"]) == ([2], 3, 0)
    assert [message["topic"] for message in topics.retained_messages("a/#")] == ["a/b"]
    assert [(topic["topic"], topic["messages"], topic["last_position"]) for topic in topics.topics("a/+")] == [("a/b", 1, 1), ("a/c", 2, 3)]
    event = '{"specversion": "1.0", "id": "e-1", "source": "/pump", "type": "reading", "partitionkey": "p", "data": {"t": 1}}'
    topics.publish("a/e", event, content_type="application/cloudevents+json")
    (told,) = topics.messages("a/e")["messages"]
    assert told["key"] == "p" and told["data"] == {"t": 1} and ["id", "e-1"] in told["attributes"]


def test_what_cannot_be_published_or_read_is_refused_in_words() -> None:
    topics = Topics()
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: topics.publish("$edgeward/x", "1"), PermissionError, "nobody publishes"),
        (lambda: topics.publish("a/+", "1"), ValueError, r"a/\+"),
        (lambda: topics.publish("a", 1), TypeError, "bytes or str, not int"),  # type: ignore[arg-type]
        (lambda: topics.publish("a", "1", expires_in_seconds=0), ValueError, "cannot expire in 0 s"),
        (lambda: topics.publish("a", "{}", content_type="application/cloudevents+json"), ValueError, "specversion"),
        (lambda: topics.follow("a/#/b"), ValueError, "a/#/b"),
        (lambda: topics.messages("#", limit=0), ValueError, "`limit` is 0"),
        (lambda: topics.messages("#", before=1, from_position=1), ValueError, "`from_position` or `before`"),
        (lambda: topics.retry_dead_letter(7), ValueError, "dead letter not found"),
    ]
    for call, kind, words in wrong:
        with pytest.raises(kind, match=words):
            call()


def test_topics_in_a_folder_outlast_their_object(tmp_path: Path) -> None:
    topics = Topics(tmp_path / "topics")
    assert topics.publish("a", "1") == 1
    with pytest.raises(Exception, match="topics"):
        Topics(tmp_path / "topics")
    del topics
    again = Topics(str(tmp_path / "topics"))
    assert again.publish("a", "2") == 2
    assert [message["data"] for message in again.messages("a")["messages"]] == ["1", "2"]


def test_topics_are_followed_from_a_position_and_as_they_come_until_closed() -> None:
    topics = Topics()
    topics.publish("a", "1")
    old, new = topics.follow("+", from_position=1), topics.follow("+")
    topics.publish("b", "2")
    assert [next(old)["data"], next(old)["data"], next(new)["data"]] == ["1", "2", "2"]
    closing = threading.Timer(0.1, new.close)
    closing.start()
    assert list(new) == [] and new.lost == 0


def test_topics_are_followed_in_an_event_loop() -> None:
    async def main() -> list[str]:
        topics = Topics()
        followed = topics.follow("a/#")
        await asyncio.gather(*(topics.publish_async("a/b", str(number), key="k") for number in range(20)))
        seen = []
        async for message in followed:
            seen.append(message["data"])
            if len(seen) == 20:
                followed.close()
        return seen

    assert sorted(asyncio.run(main()), key=int) == [str(number) for number in range(20)]


def test_a_handler_gets_each_message_as_an_event() -> None:
    events: list[dict[str, Any]] = []
    topics, runtime = Topics(), runtime_with("note", events.append)
    topics.publish("site/a", "before")
    with topics.on("site/+", runtime, "note") as trigger:
        topics.publish("site/a b", '{"t": 21.5}', content_type="application/json", key="k")
        topics.publish("elsewhere", "no")
        event = '{"specversion": "1.0", "id": "e-1", "source": "/pump", "type": "reading", "datacontenttype": "text/plain", "data": "x"}'
        topics.publish("site/b", event, content_type="application/cloudevents+json")
        until(lambda: len(events) == 2)
        until(lambda: trigger.view()["delivered"] == 2)
        assert topics.triggers()[0]["function"] == "note" and trigger.id == "note"
    first, second = sorted(events, key=lambda event: int(event["position"]))
    assert first.pop("time").endswith("Z")
    assert first == {
        "specversion": "1.0",
        "id": "2",
        "source": "/nodes/edge-01/topics",
        "type": "edgeward.topics.message",
        "subject": "site/a b",
        "partitionkey": "k",
        "datacontenttype": "application/json",
        "topic": "site/a b",
        "position": 2,
        "data": {"t": 21.5},
    }
    assert (second["id"], second["type"], second["topic"], second["data"]) == ("e-1", "reading", "site/b", "x")
    assert topics.triggers() == [] and runtime.metrics.total_invocations("note") == 2
    topics.publish("site/a", "after")
    assert len(events) == 2


def test_messages_of_one_key_are_handled_in_their_order_and_each_is_tried_again() -> None:
    seen: list[str] = []
    failed: set[str] = set()

    def flaky(event: dict[str, Any]) -> None:
        if event["data"] not in failed:
            failed.add(event["data"])
            raise RuntimeError("the first time fails")
        seen.append(event["data"])

    topics = Topics()
    with topics.on(["a/#", "b"], runtime_with("flaky", flaky), "flaky", retry=AT_ONCE):
        for number in range(20):
            topics.publish("a/b", str(number), key="one")
        until(lambda: len(seen) == 20)
    assert seen == [str(number) for number in range(20)]
    assert topics.dead_letters() == []


def test_a_message_that_fails_too_often_is_a_dead_letter_until_it_is_handled() -> None:
    broken, tries = [True], []

    def handle(event: dict[str, Any]) -> None:
        tries.append(event["data"])
        if broken[0]:
            raise ValueError("no such pump")

    topics = Topics()
    with topics.on("a", runtime_with("handle", handle), "handle", trigger_id="pumps", attempts=2, retry=AT_ONCE):
        topics.publish("a", "1")
        until(lambda: topics.dead_letters("pumps"))
        (letter,) = topics.dead_letters()
        assert tries == ["1", "1"] and letter["attempts"] == 2 and letter["trigger"] == "pumps" and "no such pump" in letter["why"]
        assert letter["message"]["data"] == "1" and not letter["is_to_retry"]
        broken[0] = False
        topics.retry_dead_letter(letter["id"])
        until(lambda: not topics.dead_letters())
        assert len(tries) == 3
        broken[0] = True
        topics.publish("a", "2")
        until(lambda: topics.dead_letters())
        topics.discard_dead_letter(topics.dead_letters()[0]["id"])
        assert topics.dead_letters() == []


def test_a_trigger_goes_on_where_the_one_of_its_id_was_also_after_a_new_start(tmp_path: Path) -> None:
    seen: list[str] = []
    runtime = runtime_with("note", lambda event: seen.append(event["data"]))
    topics = Topics(tmp_path)
    with topics.on("a", runtime, "note"):
        topics.publish("a", "1")
        until(lambda: seen == ["1"])
        with pytest.raises(ValueError, match="trigger `note` runs"):
            topics.on("b", runtime, "note")
        with pytest.raises(ValueError, match="trigger `note` runs"):
            topics.delete_trigger("note")
    topics.publish("a", "2")
    del topics
    topics = Topics(tmp_path)
    with topics.on("a", runtime, "note"):
        until(lambda: seen == ["1", "2"])
    assert topics.delete_trigger("note") and not topics.delete_trigger("note")
    topics.publish("a", "3")
    with topics.on("a", runtime, "note"):
        topics.publish("a", "4")
        until(lambda: seen == ["1", "2", "4"])


def test_a_message_waits_for_its_function() -> None:
    seen: list[str] = []
    topics, runtime = Topics(), EdgeRuntime(EdgeNode("edge-01", "warehouse"))
    with topics.on("a", runtime, "late", attempts=1) as trigger:
        topics.publish("a", "1")
        until(lambda: trigger.view()["waiting"] == 1)
        runtime.deploy(EdgeFunction("late", "late", lambda event: seen.append(event["data"])))
        until(lambda: seen == ["1"])


def test_a_handler_past_its_deadline_has_failed() -> None:
    release = threading.Event()
    topics = Topics()
    runtime = runtime_with("slow", lambda event: release.wait(30), timeout_seconds=0.05)
    try:
        with topics.on("a", runtime, "slow", attempts=1):
            topics.publish("a", "1")
            until(topics.dead_letters)
        assert "ran past its deadline" in topics.dead_letters()[0]["why"]
    finally:
        release.set()


def test_a_component_and_a_coroutine_are_called_too() -> None:
    seen: list[str] = []

    async def note(event: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        seen.append(event["data"])

    async def main() -> None:
        runtime = runtime_with("note", note)
        runtime.deploy(EdgeFunction("celsius", "celsius", artifact=CELSIUS))
        topics = Topics()
        async with topics.on("a", runtime, "note"), topics.on("a", runtime, "celsius") as trigger:
            await topics.publish_async("a", "date,temp\n2010/01/01 00:00,50.0\n", content_type="text/csv")
            await asyncio.to_thread(until, lambda: seen and trigger.view()["delivered"] == 1)

    asyncio.run(main())
