"""The client against a node and a hub that run."""

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgeward import AsyncClient, Client, EdgeExecutionError, EdgeFunction, EdgeNodeStatus

BUILT = Path(__file__).parents[2] / "functions/built"
BINARY = os.environ.get("EDGEWARD_BINARY")
START_SECONDS = 30.0

pytestmark = pytest.mark.skipif(BINARY is None, reason="EDGEWARD_BINARY names the daemon")


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
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client.status()
                break
            except OSError:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                assert time.monotonic() < deadline, "the daemon does not answer"
                time.sleep(0.02)
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


def test_a_hub_and_its_nodes(tmp_path: Path) -> None:
    port = free_port()
    with running(f"http://127.0.0.1:{port}", *hub_arguments(tmp_path, port)) as hub:
        assert hub.nodes() == [] and hub.nodes(EdgeNodeStatus.ONLINE) == [] and hub.functions() == []
        assert list(hub.events(limit=10)) == list(hub.events())
        with pytest.raises(ValueError, match="(?i)node not found"):
            hub.node("absent")
        answer = hub.deploy(EdgeFunction("hello", "hello", artifact=BUILT / "hello.wasm"), all_nodes=True)
        assert answer == {"id": "hello", "nodes": 0}


def hub_arguments(folder: Path, port: int) -> list[str]:
    return ["hub", "--data-dir", str(folder), "--listen", f"127.0.0.1:{port}", "--broker-listen", f"127.0.0.1:{free_port()}"]


def test_a_wrong_address_is_refused_and_nobody_there_is_a_connection_error() -> None:
    for wrong in ["127.0.0.1:7700", "ftp://x", "http://x/path", "http://user@x"]:
        with pytest.raises(ValueError, match="is not valid"):
            Client(wrong)
    with pytest.raises(ValueError, match="over TLS only"):
        Client("http://127.0.0.1:7700", "token")
    with pytest.raises(ConnectionError):
        Client(f"http://127.0.0.1:{free_port()}").status()
