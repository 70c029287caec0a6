"""States and documents: versions, pending changes, and what a folder keeps."""

import asyncio
import dataclasses
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from edgeward import Documents, EdgeSynchronizer, SyncState


def test_a_synchronizer_counts_versions_and_lists_changes_until_they_are_confirmed() -> None:
    sync = EdgeSynchronizer()
    assert sync.get_local_state() is None and sync.get_pending_changes() == []
    before = datetime.now() - timedelta(milliseconds=1)
    assert [sync.update_local({"n": number}).version for number in range(3)] == [1, 2, 3]
    changes = sync.get_pending_changes()
    assert [(change["type"], change["version"], change["data"]) for change in changes] == [("update", n + 1, {"n": n}) for n in range(3)]
    assert before <= changes[0]["timestamp"] <= datetime.now()
    sync.confirm_sync(up_to_version=2)
    assert [change["version"] for change in sync.get_pending_changes()] == [3]


def test_a_remote_state_is_taken_when_it_is_newer_and_whole() -> None:
    sync = EdgeSynchronizer()
    sync.update_local({"a": 1})
    assert not sync.apply_remote(SyncState.from_data({"a": 2}, version=1))
    remote = SyncState.from_data({"a": 2}, version=7)
    assert sync.apply_remote(remote)
    state = sync.get_local_state()
    assert state is not None and (state.version, state.data, state.checksum) == (7, {"a": 2}, remote.checksum)
    remote.data["a"] = 3
    remote.version = 8
    with pytest.raises(ValueError, match="checksum"):
        sync.apply_remote(remote)
    assert sync.patch_local({"b": 1, "a": None}).data == {"b": 1}
    assert sync.apply_remote(SyncState.from_data({"old": True}, 100)) and sync.apply_remote(
        dataclasses.replace(SyncState.from_data({}, 101), updated_at=datetime.min)
    )
    state = sync.get_local_state()
    assert state is not None and state.updated_at.year == 1
    for wrong in [lambda: sync.confirm_sync(-1), lambda: sync.apply_remote(SyncState.from_data({}, -1))]:
        with pytest.raises(ValueError, match="`version` is not valid: the number is out of range"):
            wrong()


def test_a_synchronizer_with_a_path_outlasts_its_process(tmp_path: Path) -> None:
    sync = EdgeSynchronizer(tmp_path / "state")
    sync.update_local({"big": 2**70, "text": "ä"})
    del sync
    again = EdgeSynchronizer(path=str(tmp_path / "state"))
    state = again.get_local_state()
    assert state is not None and state.data == {"big": 2**70, "text": "ä"} and state.verify()
    assert [change["version"] for change in again.get_pending_changes()] == [1]


def test_a_synchronizer_may_be_shared_by_threads() -> None:
    sync = EdgeSynchronizer()
    threads = [threading.Thread(target=lambda: [sync.patch_local({"n": 1}) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = sync.get_local_state()
    assert state is not None and state.version == 80


def test_documents_are_changed_by_key_and_as_a_whole(tmp_path: Path) -> None:
    documents = Documents(tmp_path / "documents", node_id="edge-01")
    cellar = documents["cellar"]
    with pytest.raises(PermissionError, match="the node's own"):
        documents["edgeward.local.functions"]
    assert cellar.view() is None and documents.list() == [] and cellar.get("doors", 0) == 0
    cellar["doors"] = 2
    cellar["names"] = ["front", {"of": None}]
    assert (cellar["doors"], cellar.get("names"), documents.list()) == (2, ["front", {"of": None}], ["cellar"])
    assert "doors" in cellar and "windows" not in cellar and "cellar" in documents and "attic" not in documents
    assert (list(cellar), cellar.keys(), len(cellar), dict(cellar)["doors"]) == (["doors", "names"], ["doors", "names"], 2, 2)
    assert (list(documents), len(documents)) == (["cellar"], 1)
    with pytest.raises(KeyError, match="windows"):
        cellar["windows"]
    del cellar["names"]
    with pytest.raises(KeyError):
        del cellar["names"]
    assert [cellar.increment("visits"), cellar.increment("visits", by=5)] == [1, 6]
    assert cellar.patch({"doors": None, "open": True}).data == {"open": True, "visits": 6}
    state = cellar.replace({"a": 1})
    with pytest.raises(ValueError) as caught:
        cellar.replace({"a": 2}, if_version=state.version - 1)
    assert getattr(caught.value, "kind") == "conflict"
    assert cellar.replace({"a": 2}, if_version=state.version).version == state.version + 1
    assert documents["new"].replace({}, if_version=0).version == 1
    cellar.confirm(state.version)
    assert [change["data"] for change in cellar.pending()] == [{"a": 2}]
    assert len(cellar.history()) > 1
    assert cellar.take_over(SyncState.from_data({"b": 1}, 100)) and cellar["b"] == 1
    assert cellar.clear() and not cellar.clear()


def test_a_document_is_watched() -> None:
    async def main() -> None:
        document = Documents()["cellar"]
        document["n"] = 0
        seen = []
        async for state in document.watch():
            seen.append(state.data["n"])
            if len(seen) == 3:
                break
            document["n"] = len(seen)
        assert seen == [0, 1, 2]

    asyncio.run(asyncio.wait_for(main(), 10))
