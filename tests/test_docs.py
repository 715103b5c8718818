"""Every ```python block of the READMEs and of docs/ runs, in order, page by page; links lead somewhere."""

import ast
import re
from pathlib import Path

import pytest

import detloss
from detloss import formula

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
PAGES = [*READMES, *sorted((ROOT / "docs").rglob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "experiments/README.md", ROOT / "benchmarks/README.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PUBLIC = re.compile(
    r"detloss(\.(formula|mining|schedule|balance|names|boxes|integrations))?|detloss\.lab(\.[a-z]\w*)+"
)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def snippets(page: Path) -> str:
    """The page's code at its own line numbers, so that a traceback points into the page."""
    text, code, lines = page.read_text(encoding="utf-8"), "", 0
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        code += "\n" * (line - lines) + block[1]
        lines = line + block[1].count("\n")
    return code


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


WITH_CODE = [page for page in PAGES if snippets(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=named)
def test_snippets_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(snippets(page), str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", WITH_CODE, ids=named)
def test_snippets_import_what_is_public(page):
    for node in ast.walk(ast.parse(snippets(page))):
        if isinstance(node, ast.ImportFrom):
            modules, names = [node.module or ""], [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            modules, names = [alias.name for alias in node.names], []
        else:
            continue
        for module in modules:
            assert not module.startswith("detloss") or PUBLIC.fullmatch(module), module
            assert not (module.startswith("detloss") and any(name.startswith("_") for name in names)), names


def test_no_page_is_passed_over():
    assert {"README.md", "docs/losses.md", "docs/data.md", "docs/evaluate.md"} <= set(map(named, WITH_CODE))
    for page in PAGES:
        fences = re.findall(r"^ *```[ \t]*(?:py|python)\b", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == len(BLOCK.findall(page.read_text(encoding="utf-8"))), page


@pytest.mark.parametrize("page", LINKING, ids=named)
def test_links_within_the_repository_lead_somewhere(page):
    for link in re.findall(r"""(?:\]\(|(?:src|href)=")([^)\s"]+)""", page.read_text(encoding="utf-8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_public_name_is_on_a_reference_page():
    pages = (ROOT / "docs/reference").glob("*.md")
    shown = {name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)}
    public = {f"detloss.{name}" for name in detloss.__all__ if not name.startswith("__")}
    assert public - shown == set()
    assert {
        f"detloss.{module}" for module in ("mining", "schedule", "balance", "names", "integrations")
    } <= shown
    formulas = (ROOT / "docs/reference/formula.md").read_text(encoding="utf-8")
    pieces = set(re.findall(r"^ +- (\w+)$", formulas, re.MULTILINE))
    assert set(formula.__all__) - {"elementwise_loss", "box_loss"} == pieces


def test_every_page_is_in_the_navigation_of_the_site():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    for page in (ROOT / "docs").rglob("*.md"):
        assert f" {page.relative_to(ROOT / 'docs').as_posix()}\n" in navigation, page
