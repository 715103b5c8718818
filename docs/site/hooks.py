"""What the site adds to the pages of docs/: pages from elsewhere in the repository, and formulas as MathML.

README.md is the start page. The experiments, the benchmarks and the pages for contributors join the site
under the paths that they have in the repository. Links are written for the repository, and are moved here.
"""

import re
from html import unescape
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
START = "README.md"
OUTSIDE = (
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "experiments/README.md",
    "experiments/*.py",
    "experiments/detectors/*.json",
    "experiments/results/*",
    "examples/*.py",
    "benchmarks/README.md",
    "benchmarks/results/*.csv",
)
LINK = re.compile(r"""(\]\(|src=")(?!\w+:|#)([^)\s"]+)""")
FUNCTION = re.compile("<mi>(log|max|arctan)</mi>")
THIN = '<mspace width="0.17em" />'
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the start page and the files outside of docs/."""
    files.append(File.generated(config, "index.md", content=(ROOT / START).read_text(encoding="utf-8")))
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            place = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as the repository's folders have them become links as the site's folders have them."""
    here = page.file.src_uri
    inside = files.get_file_from_path(here).abs_src_path or ""
    in_docs = inside.startswith(config.docs_dir)
    source = f"docs/{here}" if in_docs else START if here == "index.md" else here

    def moved(link: re.Match[str]) -> str:
        path, mark, anchor = link[2].partition("#")
        target = normpath(join(dirname(source), path))
        target = "index.md" if target == START else target.removeprefix("docs/")
        return f"{link[1]}{relpath(target, dirname(here) or '.')}{mark}{anchor}"

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas are drawn by the browser itself: no script, and nothing is loaded from elsewhere."""

    def drawn(formula: re.Match[str]) -> str:
        display = "block" if formula[1] == "div" else "inline"
        return FUNCTION.sub(rf"{THIN}\g<0>{THIN}", convert(unescape(formula[2]).strip(), display=display))

    return FORMULA.sub(drawn, html)
