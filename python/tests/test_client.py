"""The client against a node that runs, and against what is none."""

import asyncio
import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from edgeward import AsyncClient, Client, EdgeExecutionError, EdgeFunction

BUILT = Path(__file__).parents[2] / "functions/built"
BINARY = os.environ.get("EDGEWARD_BINARY")
START_SECONDS = 30.0

pytestmark = pytest.mark.skipif(BINARY is None, reason="EDGEWARD_BINARY names the daemon")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(url: str, *arguments: str) -> Iterator[Client]:
    assert BINARY is not None
    process = subprocess.Popen([BINARY, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        client = Client(url)

        def answers() -> bool:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            with contextlib.suppress(OSError):
                return bool(client.status())
            return False

        wait_until(answers)
        yield client
    finally:
        process.terminate()
        process.wait(START_SECONDS)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    api, functions = free_port(), free_port()
    folder = str(tmp_path_factory.mktemp("node"))
    with running(
        f"http://127.0.0.1:{api}",
        *["up", "--data-dir", folder, "--listen", f"127.0.0.1:{api}", "--functions-listen", f"127.0.0.1:{functions}"],
    ) as client:
        yield client


def test_functions_of_a_node(node: Client) -> None:
    assert node.status()["functions"] == 0 and node.functions() == []
    answer = node.deploy(EdgeFunction("hello", "hello", artifact=BUILT / "hello.wasm", environment={"KEY": "secret"}))
    assert (answer["id"], answer["state"], answer["environment"]) == ("hello", "ready", {"KEY": "[redacted]"})
    assert b"hello" in node.invoke("hello").lower()
    assert node.summary("hello")["total_invocations"] == 1
    assert 'faas_invocations_total{faas_name="hello",edgeward_node_id=' in node.metrics()
    assert "# TYPE edgeward_functions gauge" in asyncio.run(AsyncClient(node.url).metrics())
    assert isinstance(list(node.logs("hello")), list)
    node.deploy(EdgeFunction("celsius", "celsius", artifact=(BUILT / "celsius.wasm").read_bytes()))
    with pytest.raises(EdgeExecutionError) as caught:
        node.invoke("celsius", "no csv")
    assert (caught.value.kind, caught.value.exit_code) == ("execution_failed", 1) and caught.value.stderr_tail
    with pytest.raises(ValueError, match="(?i)function not found") as unknown:
        node.invoke("absent")
    assert getattr(unknown.value, "kind") == "not_found"
    assert node.undeploy("hello") and not node.undeploy("hello")
    with pytest.raises(TypeError, match="handler of this process"):
        node.deploy(EdgeFunction("f", "f", print))


def test_documents_of_a_node(node: Client) -> None:
    assert node.document("cellar") is None
    state = node.put_document("cellar", {"doors": 2, "big": 2**70})
    assert (state.version, state.data) == (1, {"doors": 2, "big": 2**70}) and state.verify()
    changed = node.patch_document("cellar", {"big": None}, if_state=state)
    assert node.document("cellar") == changed and changed.data == {"doors": 2}
    with pytest.raises(ValueError) as caught:
        node.put_document("cellar", {}, if_state=state)
    assert getattr(caught.value, "kind") == "conflict"
    assert [document["name"] for document in node.documents()] == ["cellar"]
    assert [change["version"] for change in node.pending_changes("cellar")] == [1, 2]
    assert abs((node.history("cellar")[-1]["timestamp"] - changed.updated_at).total_seconds()) < 1
    node.confirm("cellar", 1)
    assert [change["version"] for change in node.pending_changes("cellar")] == [2]
    assert node.conflicts("cellar")["conflicts"] == []
    watched = node.watch_document("cellar")
    assert next(watched)["version"] == 2
    node.put_document("cellar", {"doors": 3})
    assert next(watched)["version"] == 3
    node.delete_document("cellar")
    with pytest.raises(PermissionError):
        node.document("edgeward.local.functions")


def test_the_client_can_be_awaited(node: Client) -> None:
    async def main() -> None:
        client = AsyncClient(node.url)
        states = await asyncio.gather(*[client.put_document(f"doc-{number}", {"n": number}) for number in range(8)])
        assert [state.data["n"] for state in states] == list(range(8))
        assert (await client.status())["version"]
        with pytest.raises(ValueError):
            await client.invoke("absent")

    asyncio.run(main())


def test_a_wrong_address_is_refused_and_nobody_there_is_a_connection_error() -> None:
    for wrong in ["127.0.0.1:7700", "ftp://x", "http://x/path", "http://user@x"]:
        with pytest.raises(ValueError, match="is not valid"):
            Client(wrong)
    with pytest.raises(ValueError, match="over TLS only"):
        Client("http://127.0.0.1:7700", "token")
    for nobody in [f"http://127.0.0.1:{free_port()}", "http://nobody.invalid:7700"]:
        with pytest.raises(ConnectionError, match=f"failed to ask `{nobody}`") as caught:
            Client(nobody).status()
        assert getattr(caught.value, "kind") == "unavailable" and caught.value.__cause__ is not None


@contextlib.contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """A server that gives every call this answer, or none."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    connections.append(connection)
                    if answer is not None:
                        connection.recv(65536)
                        connection.sendall(answer)
                        connection.close()

        connections: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in connections:
            connection.close()


def test_a_server_that_does_not_answer_or_is_none_of_ours_is_told_as_what_it_is() -> None:
    with answering(None) as silent, pytest.raises(TimeoutError, match="did not answer GET /v1/status within 0.1 seconds") as late:
        Client(silent, timeout_seconds=0.1).status()
    assert getattr(late.value, "kind") == "unavailable"
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"
    with answering(page) as other, pytest.raises(RuntimeError, match="is it a node or a hub"):
        Client(other).status()
    with answering(b"SSH-2.0-OpenSSH\r\n") as ssh, pytest.raises(ConnectionError, match="failed to ask"):
        Client(ssh).status()
    with answering(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nproxy") as proxy, pytest.raises(RuntimeError, match="502: proxy"):
        Client(proxy).status()


def test_topics_of_a_node(node: Client) -> None:
    assert node.put_trigger("t", "absent", ["a/#"], retry={"attempts": 1})["function"] == "absent"
    assert [trigger["id"] for trigger in node.triggers()] == ["t"] and node.trigger("t")["mode"] == "binary"
    first = node.publish("a/b", "21.5", key="k")
    assert node.publish("a/b", b"\xff", retain=True) == first + 1
    node.publish("a/c", '{"t": 1.5}', content_type="application/json", expires_in_seconds=60)
    followed = node.follow("a/+", from_position=first)
    messages = [next(followed) for _ in range(3)]
    followed.close()
    assert (messages[0]["data"], messages[0]["key"], messages[1]["data_base64"], messages[2]["data"]) == ("21.5", "k", "/w==", {"t": 1.5})
    page = node.messages("a/b", limit=1)
    assert page["messages"][0]["position"] == first + 1 and page["before"] == first + 1
    read = node.messages("a/b", from_position=first, limit=1)
    assert (read["messages"][0]["data"], read["next"], read["lost"]) == ("21.5", first + 1, 0)
    assert node.messages("a/b", from_position=read["next"])["messages"][0]["data_base64"] == "/w=="
    assert [message["topic"] for message in node.retained_messages("a/#")] == ["a/b"]
    assert [topic["topic"] for topic in node.topics("a/+")] == ["a/b", "a/c"]
    assert node.dead_letters("t") == []
    for act in (node.retry_dead_letter, node.discard_dead_letter):
        with pytest.raises(ValueError, match="dead letter not found") as missing:
            act(7)
        assert getattr(missing.value, "kind") == "not_found"
    with pytest.raises(ValueError, match="for filters only"):
        node.publish("a/+", "x")
    assert node.delete_trigger("t") and not node.delete_trigger("t")

    async def use(client: AsyncClient) -> None:
        position = await client.publish("a/b", "again")
        async for message in client.follow("a/b", from_position=position):
            assert message["data"] == "again"
            break
        assert (await client.messages("a/b"))["messages"][-1]["data"] == "again"
        assert (await client.messages("a/b", from_position=position))["messages"][0]["data"] == "again"
        assert (await client.put_trigger("u", "f", ["x"]))["id"] == "u" and await client.delete_trigger("u")

    asyncio.run(use(AsyncClient(node.url)))
