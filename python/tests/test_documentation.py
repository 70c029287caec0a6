"""The examples of the documentation run, and a program that uses everything is well typed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


@pytest.mark.parametrize("page", ["docs/python.md", "README.md"])
def test_the_examples_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    (tmp_path / "celsius.wasm").symlink_to(REPOSITORY / "functions/built/celsius.wasm")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "documentation"}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def mypy(*arguments: str) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", *arguments], capture_output=True, text=True, cwd=HERE
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_package_is_typed() -> None:
    mypy("typed_example.py")
    mypy("-p", "edgeward", "-p", "codomyrmex.edge_computing")
