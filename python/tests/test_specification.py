"""Every code block of the specification runs as it is written, in its order and in one namespace."""

import re
from importlib.metadata import requires, version
from pathlib import Path

from codomyrmex import edge_computing

SPECIFICATION = Path(__file__).parent / "edge_computing_api.md"

# What the blocks take as given. `func` and `node` are those of the block before them, and the cluster forgets the node in its second step.
PREAMBLE = """
def my_handler(image):
    return ("processed", image)

image_data = object()
"""


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", SPECIFICATION.read_text(), re.MULTILINE | re.DOTALL)


def test_every_block_runs_unchanged() -> None:
    found = blocks()
    assert len(found) == 4
    names: dict[str, object] = {}
    exec(PREAMBLE, names)
    for block in found:
        exec(compile(block, "specification", "exec"), names)
    assert names["applied"] is True and names["changes"][0]["version"] == 1  # type: ignore[index]
    assert names["current"].version == 5  # type: ignore[attr-defined]
    result = names["result"]
    assert result[1] is names["image_data"]  # type: ignore[index]
    assert names["count"] == 0


def test_the_two_distributions_are_of_one_version() -> None:
    assert requires("codomyrmex-edge") == [f"edgeward=={version('edgeward')}"] and version("codomyrmex-edge") == version("edgeward")


def test_the_import_path_is_a_namespace_package() -> None:
    import codomyrmex

    assert getattr(codomyrmex, "__file__", None) is None
    assert set(edge_computing.__all__) >= set(re.findall(r"\*\*`(Edge\w+|SyncState|InvocationRecord)`\*\*", SPECIFICATION.read_text()))
