"""Results → figures on disk and one self-contained page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from detloss.lab.compare.captions import draw
from detloss.lab.compare.config import CompareConfig
from detloss.lab.compare.results import Results, read_results
from detloss.lab.compare.sentences import answer, still_learning
from detloss.lab.compare.tables import tables
from detloss.lab.figures import save
from detloss.lab.runs import write_text


def write_report(
    folder: Path,
    results: Results | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Path:
    """Writes figures/ and report.html into the folder of a comparison; the page is returned.

    Args:
        folder: of the comparison.
        results: what it holds; read where it is not given.
        progress: called with (done, total) after each figure.

    Raises:
        ValueError: there are no results.
    """
    results = results or read_results(folder)
    figures = {}
    drawn = list(draw(results))
    for done, (stem, title, caption, figure) in enumerate(drawn, start=1):
        # Photographs are large as SVG.
        suffixes = ("png",) if stem == "samples" else ("png", "svg")
        save(figure, folder / "figures" / stem, suffixes)
        source = _data_uri(folder / "figures" / f"{stem}.{suffixes[-1]}")
        figures[stem] = {"title": title, "caption": caption, "source": source}
        progress(done, len(drawn))
    ap, curves = results.column("ap"), results.curves
    environment = Environment(
        loader=PackageLoader("detloss.lab.compare", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        losses=list(results.runs),
        question=_question(results),
        tuning=_tuning(results.config),
        config=results.config,
        answer=answer(ap, results.config.rope / 100, results.config.looks, results.images, curves),
        with_images=results.images is not None,
        still_learning=still_learning(curves),
        tables=tables(results),
        figures=figures,
        data=results.data,
        diverged=results.diverged,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _question(results: Results) -> str:
    config, data, names = results.config, results.data, list(results.runs)
    return (
        f"Which of {', '.join(names)} gives the highest AP? {data['train']['images']:,} training and "
        f"{data['val']['images']:,} validation images ({data['source']}), {len(data['names'])} classes, "
        f"{config.steps:,} steps of {config.batch} images at {config.size} px. Data, seeds, initial "
        f"weights, batches and schedule are the same for all; only the loss differs, with "
        f"{_tuning(config)}."
    )


def _tuning(config: CompareConfig) -> str:
    """What each loss got of its own, and what all share."""
    rates, weights = (list(dict.fromkeys(values)) for values in zip(*config.candidates))
    if len(config.candidates) == 1:
        return f"the same learning rate ({rates[0]:g}) and box weight ({weights[0]:g}) for all"
    said = [
        f"a {words} of its own (of {', '.join(f'{v:g}' for v in values)})"
        if len(values) > 1
        else f"{words} {values[0]:g} for all"
        for words, values in (("learning rate", rates), ("box weight", weights))
    ]
    if len(rates) == 1:
        said.reverse()
    return " and ".join(said)


def _data_uri(path: Path) -> str:
    content, kind = path.read_bytes(), "svg+xml"
    if path.suffix == ".png":
        buffer, kind = io.BytesIO(), "jpeg"
        with Image.open(path) as image:
            image.convert("RGB").save(buffer, "JPEG", quality=88)
        content = buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
