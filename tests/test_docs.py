"""Every ```python block of the README and of docs/ runs, in order, page by page."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(page: Path) -> str:
    """The page's code at its own line numbers, so that a traceback points into the page."""
    text, code, lines = page.read_text(encoding="utf-8"), "", 0
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        code += "\n" * (line - lines) + block[1]
        lines = line + block[1].count("\n")
    return code


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda page: page.name)
def test_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(snippets(page), str(page), "exec"), {"__name__": "__main__"})


def test_no_page_is_passed_over():
    assert {"losses.md", "data.md", "evaluate.md"} <= {page.name for page in PAGES if snippets(page)}
    for page in PAGES:
        fences = re.findall(r"^ *```[ \t]*(?:py|python)\b", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == len(BLOCK.findall(page.read_text(encoding="utf-8"))), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif "://" not in link:
            assert (page.parent / link.split("#")[0]).exists(), link
