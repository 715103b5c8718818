"""The code of docs/integrations.md runs where the clients are, from top to bottom."""

import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
PAGE = Path(__file__).parents[2] / "docs/integrations.md"
CLIENTS = ["torchvision", "transformers", "ultralytics", "timm", "segmentation_models_pytorch", "keras"]
BLOCK = re.compile(r"^```python3\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")  # read when it is imported
    for client in CLIENTS:
        pytest.importorskip(client)
    monkeypatch.chdir(tmp_path)
    text, code, lines = PAGE.read_text(encoding="utf-8"), "", 0
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        code += "\n" * (line - lines) + block[1]
        lines = line + block[1].count("\n")
    exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})
