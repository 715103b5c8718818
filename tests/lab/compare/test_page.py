"""The page holds what the folder says, needs nothing from outside, and shows well in a real browser."""

import base64
import html
import itertools
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detloss.lab.compare.disagreements import Disagreement, disagreement
from detloss.lab.compare.page import draw, write_report
from detloss.lab.compare.results import read_results, save_samples
from detloss.lab.compare.sentences import answer
from detloss.lab.compare.tables import tables
from detloss.lab.evaluate import evaluate, from_coco_results
from detloss.lab.evaluate.evaluation import SizeBin
from detloss.lab.runs import read_csv, read_json
from detloss.lab.statistics import decide, mean_interval, points
from helpers.fake_comparison import IMAGES, LOSSES, NAMES, truths, write_comparison, write_csv, write_json


class Truths(list):
    def annotation(self, i: int):
        return self[i].annotation


def keep_samples(folder: Path) -> Disagreement:
    apart = disagreement(read_results(folder))
    assert apart is not None
    save_samples(folder, Truths(truths()), apart.f1)
    return apart


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = write_comparison(tmp_path_factory.mktemp("comparison"))
    keep_samples(out)
    assert write_report(out) == out / "report.html"
    return out


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(page) -> str:
    """What a reader sees: tags dropped, white space joined."""
    return plain(page)


def plain(page: str) -> str:
    visible = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)
    return " ".join(html.unescape(visible).split())


def column(folder: Path, loss: str, name: str) -> list[float]:
    rows = read_csv(folder / "results.csv")
    return [float(row[name]) for row in rows if row["classification_loss"] == loss]


def cells(page: str, label: str) -> list[list[str]]:
    table = re.search(rf'aria-label="{re.escape(label)}">\s*<table>(.*?)</table>', page, re.S)
    assert table, label
    rows = re.findall(r"<tr>(.*?)</tr>", table.group(1), re.S)
    return [[html.unescape(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)] for row in rows]


def test_question_and_answer(folder, text):
    ap = {loss: dict(enumerate(column(folder, loss, "ap"))) for loss in LOSSES}
    assert f"Which of {', '.join(LOSSES)} gives the highest AP?" in text
    assert (
        f"{IMAGES} training and {IMAGES} validation images for each seed (embedded), 3 classes, 400 steps of "
        "16 images" in text
    )
    assert "chosen on a part of the training images held out for that" in text
    results = read_results(folder)
    assert plain(answer(ap, decide(ap), curves=results.curves)) in text
    assert "(scenes, initial weights, batches, augmentation), and so other images of this kind." in text
    assert "None covers another outcome of the sweep." in text
    own = "a learning rate of its own (of 0.003, 0.01, 0.03) and a box weight of its own (of 2, 6)"
    assert f"only the loss differs, with {own}." in text
    assert f"Each loss got {own}, chosen on a part" in text
    assert "Not tuned: hyperparameters of the losses" in text


def test_main_table(folder, page):
    header, *rows = cells(page, "Results of each loss")
    assert header[:7] == ["loss", "AP", "of each seed", "AP50", "AP75", "ECE", "recall"]
    assert [row[0] for row in rows] == list(LOSSES)
    for loss, row in zip(LOSSES, rows):
        assert row[2] == " ".join(map(points, column(folder, loss, "ap")))
        for name, shown in zip(("ap", "ap50", "ap75", "ece", "ece_recall"), (row[1], *row[3:])):
            assert shown == points(*mean_interval(column(folder, loss, name)))
        assert row[header.index("learning rate")] == "0.01"
        assert row[header.index("box weight")] == "2"
        assert row[header.index("memory, MB")] == "605"


def test_differences_have_interval_and_verdict(page):
    header, *rows = cells(page, "Differences of all pairs")
    assert header == [
        *("pair", "verdict on AP", "ΔAP", "at ¼ and ½ of the steps", "over seeds", "further seeds", "ΔECE")
    ]
    pairs = [row[0].split(" − ") for row in rows]
    assert [set(pair) for pair in pairs] == [set(pair) for pair in itertools.combinations(LOSSES, 2)]
    for _, verdict, difference, before, interval, further, _ in rows:
        low, high = (float(end.replace("−", "-")) for end in interval.split(" to "))
        assert verdict == ("better" if low > 0 else "undecided")
        assert high > 0
        assert further == "–" or verdict == "undecided"
        assert difference.startswith("+")
        assert re.fullmatch(r"[+−]\d+\.\d, [+−]\d+\.\d: (growing|shrinking|reversed|steady)", before)


def test_sweep_data_configuration_and_versions(page, text):
    header, *rows = cells(page, "The sweep")
    assert header == ["loss", "learning rate", "box weight", "AP", ""]
    assert [row[0] for row in rows if row[-1] == "chosen"] == list(LOSSES)
    assert all(row[1:3] == ["0.01", "2"] for row in rows if row[-1] == "chosen")
    assert len(rows) == 4 * len(LOSSES)
    data = {row[0]: row[1:] for row in cells(page, "Images and objects")}
    assert data["images"] == [str(IMAGES)] * 2
    count = sum(int((sample.labels == 0).sum()) for sample in truths())
    assert data[f"{NAMES[0]} (class 0)"] == [str(count)] * 2
    assert "182 negative locations for one positive; 549 negative logits for one positive logit" in text
    assert ["optimizer", "adamw"] in cells(page, "Configuration")
    assert ["box_weights", "2.0 6.0"] in cells(page, "Configuration")
    assert ["torch", "0.0"] in cells(page, "Versions and machine")


def test_ap_by_size_and_class(folder, page):
    results = read_results(folder)
    _, *rows = cells(page, "AP by class")
    assert [row[0] for row in rows] == list(NAMES)
    ring = mean_interval([run.evaluation.per_class["ring"] for run in results.runs["focal"].values()])
    assert rows[0][3] == points(*ring)
    assert re.match(r"16 to 32 px \(\d+ objects\)", cells(page, "AP by size")[1][0])


def test_seeds_with_images_of_their_own_share_the_rows_of_sizes(folder):
    """Each seed has another number of objects, and one has none of a size."""
    results = read_results(folder)
    sizes = [
        [(16, 32, 40, 0.5), (32, 64, 2, 0.2)],
        [(16, 32, 44, 0.7)],
        [(16, 32, 1300, 0.6), (64, math.inf, 1, 0.9)],
    ]
    runs = {
        name: {
            seed: replace(
                run, evaluation=replace(run.evaluation, size_bins=tuple(SizeBin(*one) for one in sizes[seed]))
            )
            for seed, run in of.items()
        }
        for name, of in results.runs.items()
    }
    table = tables(replace(results, runs=runs))["sizes"]
    assert [row[:2] for row in table.rows] == [
        ["16 to 32 px (40 to 1,300 objects)", points(*mean_interval([0.5, 0.7, 0.6]))],
        ["32 to 64 px (2 objects)", points(0.2)],
        ["64 px and more (1 objects)", points(0.9)],
    ]


FIGURES = {
    *("ap_per_seed", "ap_over_steps", "precision_recall", "precision_by_class", "reliability", "score_iou"),
    *("errors", "f1", "confusion", "loss_share", "cost", "samples", "sweep"),
}


def test_figures_are_written_and_embedded(folder, page):
    written = {path.name for path in (folder / "figures").iterdir()}
    assert written == {f"{stem}.{kind}" for stem in FIGURES for kind in ("png", "svg")} - {"samples.svg"}
    sources = re.findall(r'<img src="data:image/([\w+]+);base64,([^"]+)" alt="([^"]+)"', page)
    assert len(sources) == len(FIGURES)
    assert sorted(kind for kind, _, _ in sources) == ["jpeg"] + ["svg+xml"] * 12
    for kind, content, alt in sources:
        start = base64.b64decode(content)[:5]
        assert start == b"<?xml" if kind == "svg+xml" else start.startswith(b"\xff\xd8")
        assert len(alt) > 40


def test_page_needs_nothing_from_outside(folder, page):
    assert (folder / "report.html").stat().st_size < 4_000_000
    assert "<script" not in page
    assert "<link" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    # within the pictures, too
    for content in re.findall(r'data:image/svg\+xml;base64,([^"]+)', page):
        svg = base64.b64decode(content).decode()
        assert not re.findall(r'(?:xlink:)?href="(?!data:|#)', svg)


def configure(folder: Path, **values) -> None:
    path = folder / "config.json"
    write_json(path, read_json(path) | values)


def test_one_loss_one_seed_no_sweep(tmp_path):
    write_comparison(tmp_path, losses=("focal",), seeds=1)
    (tmp_path / "sweep.csv").unlink()
    configure(tmp_path, lr=0.01, box_weight=2.0)
    text = plain(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "(1 seed); it stands alone." in text
    assert "only the loss differs, with the same learning rate (0.01) and box weight (2) for all." in text
    assert "not other images" not in text
    assert "Differences" not in text
    assert "How each loss was tuned" not in text
    assert "nan" not in text.lower().split()


def test_one_seed_diverged_runs_and_a_choice_at_the_end_of_the_sweep(tmp_path):
    write_comparison(tmp_path, losses=("bce", "focal"), seeds=1)
    diverged = tmp_path / "runs" / "varifocal+giou" / "seed-0" / "diverged.json"
    write_json(diverged, "varifocal: <loss> is nan at step 3")
    configure(tmp_path, losses=["bce", "focal", "varifocal"])
    rows = read_csv(tmp_path / "sweep.csv")
    for row in rows:
        row["chosen"] = int(row["lr"] == "0.03")
        if row["classification_loss"] == "bce":
            row["ap"] = 0.0 if row["lr"] == "0.03" else ""  # all others diverged
    write_csv(tmp_path / "sweep.csv", rows)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    differences = cells(page, "Differences of all pairs")
    assert set(differences[1][0].split(" − ")) == {"bce", "focal"}
    assert [row[1] for row in differences[1:]] == ["undecided"] * 3
    assert [row[4] for row in differences[1:]] == ["–"] * 3
    assert "No verdict from one seed" in page
    assert "varifocal has no result." in page
    assert "varifocal: &lt;loss&gt; is nan at step 3" in page
    assert "bce, focal: the largest learning rate tried was chosen; a larger one might do" in plain(page)
    assert "box weight tried" not in page  # of two, each is at an end
    assert "Only 2 box weights were tried (2 and 6), each an end of the range" in page
    assert "Only 2 learning rates" not in page
    assert "bce: no trial found anything (AP 0 or diverged)" in page
    assert "focal: no trial" not in page


def test_calibration_table(folder, page):
    header, *rows = cells(page, "Calibration")
    assert header[:5] == ["loss", "detections", "recall", "ECE", "by chance"]
    for loss, row in zip(LOSSES, rows, strict=True):
        files = sorted((folder / "runs" / f"{loss}+giou").glob("seed-*/metrics.json"))
        found = [read_json(file)["calibration"] for file in files]
        assert row[0] == loss
        shown = {"recall": 2, "ece": 3, "ece_platt": 5, "signed_gap": 6, "laece": 7}
        for what, cell in ((what, row[column]) for what, column in shown.items()):
            mean = np.mean([one[what] for one in found])
            assert cell.split()[0] == points(mean, sign=what == "signed_gap"), what


def test_losses_are_named_by_what_differs(tmp_path):
    write_comparison(tmp_path, losses=("bce", "focal"), seeds=1)
    rows = read_csv(tmp_path / "results.csv")
    for row, loss, box in zip(rows, ("focal", "focal"), ("giou", "ciou")):
        old = tmp_path / "runs" / f"{row['classification_loss']}+giou" / "seed-0"
        config = (old / "config.json").read_text().replace('"giou"', f'"{box}"')
        (old / "config.json").write_text(config.replace(f'"{row["classification_loss"]}"', f'"{loss}"'))
        row["classification_loss"], row["box_loss"] = loss, box
    write_csv(tmp_path / "results.csv", rows)
    (tmp_path / "sweep.csv").unlink()
    configure(tmp_path, losses=["focal"], box_losses=["giou", "ciou"])
    assert list(read_results(tmp_path).runs) == ["giou", "ciou"]


def test_a_baseline_without_a_result_stays_the_baseline(tmp_path):
    write_comparison(tmp_path, losses=("focal", "quality_focal"), seeds=2)
    keep_samples(tmp_path)
    configure(tmp_path, losses=["bce", "focal", "quality_focal"], lr=0.01)
    for seed in range(2):
        write_json(tmp_path / "runs" / "bce+giou" / f"seed-{seed}" / "diverged.json", f"bce: seed {seed}")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    header, *rows = cells(page, "Results of each loss")
    assert rows[0] == ["bce", *["–"] * (len(header) - 1)]
    rows = cells(page, "Differences of all pairs")[1:]
    assert [row[0] for row in rows[:2]] == ["bce − focal", "bce − quality_focal"]
    assert rows[0][1:5] == ["undecided", "–", "–", "–"]
    assert "bce has no result." in page
    assert "nan" not in plain(page).lower().split()
    said = "a box weight of its own (of 2, 6) and learning rate 0.01 for all"
    assert f"got {said}, chosen on a part of the training images" in plain(page)


def test_every_run_diverged_is_one_clear_line(tmp_path):
    write_json(tmp_path / "runs" / "bce+giou" / "seed-0" / "diverged.json", "bce: loss is nan at step 3")
    with pytest.raises(ValueError, match=r"every run diverged, bce: loss is nan at step 3$"):
        write_report(tmp_path)


def test_captions_name_the_threshold_of_the_calibration(text):
    assert "Only detections with a score of at least 0.05." in text
    assert "Each dot is a right detection, of the detections with a score of at least 0.05." in text
    assert "each learning rate at one box weight, then the other box weights at the best rate" in text
    assert "each with its detections from the score of its best F1 on" in text


def test_the_images_where_the_leading_losses_disagree_most(tmp_path):
    samples = truths()
    write_comparison(tmp_path, losses=LOSSES[:2], seeds=2)
    results = read_results(tmp_path)
    apart = disagreement(results)
    assert apart is not None
    means = {name: np.mean(list(of.values())) for name, of in results.column("ap").items()}
    assert apart.losses == tuple(sorted(means, key=lambda name: -means[name])[:2])
    assert apart.seed == 0
    f1 = {sample.id: [] for sample in samples}
    for name, score in zip(apart.losses, apart.scores):
        run = results.runs[name][0]
        assert score == run.evaluation.operating.best_score
        kept = [one for one in run.detections if one["score"] >= score]
        for sample, found in zip(samples, from_coco_results(kept, list(f1))):
            whole = evaluate([found], [sample], NAMES).operating
            nothing = not len(found.scores) and not len(sample.labels)
            f1[sample.id].append(1.0 if nothing else float(np.nan_to_num(whole.f1[0])))
    assert len(apart.f1) == 4
    for id, pair in apart.f1.items():
        assert pair == pytest.approx(f1[id])
    gaps = [abs(a - b) for a, b in apart.f1.values()]
    assert gaps == sorted(gaps, reverse=True)
    assert sum(abs(a - b) > gaps[-1] for a, b in f1.values()) < 4
    kept = save_samples(tmp_path, Truths(samples), apart.f1)
    assert [sample.id for sample in kept] == list(apart.f1)
    by_id = {sample.id: sample for sample in samples}
    for sample, again in zip(kept, read_results(tmp_path).samples, strict=True):
        for name in ("image", "boxes", "labels", "ignored"):
            np.testing.assert_array_equal(getattr(sample, name), getattr(by_id[sample.id], name))
            np.testing.assert_array_equal(getattr(sample, name), getattr(again, name))
    text = plain(write_report(tmp_path).read_text(encoding="utf-8"))
    assert f"Where {apart.losses[0]} and {apart.losses[1]} disagree most" in text
    assert all(f"{id} {a:.2f} and {b:.2f}" in text for id, (a, b) in apart.f1.items())


def test_one_loss_disagrees_with_nobody(tmp_path):
    write_comparison(tmp_path, losses=("bce",), seeds=1)
    assert disagreement(read_results(tmp_path)) is None


def test_empty_folder_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match=r"has no results\.csv with a finished run"):
        write_report(tmp_path)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Windows narrower than 500 px cannot be had, so the page is shown in a frame that reports what it measures.
FRAME = """<!DOCTYPE html><style>body {{ margin: 0 }} iframe {{ border: 0; display: block }}</style>
<iframe src="page.html" width="{width}" height="2000"></iframe>
<script>addEventListener("message", event => document.title = event.data)</script>"""
MEASURE = """<script>addEventListener("load", () => {
  const drawn = [...document.images].filter(i => i.naturalWidth > 0 && i.getBoundingClientRect().width > 250);
  parent.postMessage([innerWidth, document.documentElement.scrollWidth, drawn.length,
    getComputedStyle(document.body).backgroundColor].join(" / "), "*");
});</script></body>"""


def browse(page: Path, *arguments: str) -> str:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--window-size=1200,2000", "--timeout=20000"]
    done = subprocess.run([*command, *arguments, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt-get install chromium)")
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1200, True)])
def test_in_a_real_browser(page, tmp_path, width, dark):
    (tmp_path / "page.html").write_text(page.replace("</body>", MEASURE), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.format(width=width), encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    dom = browse(frame, "--dump-dom", "--virtual-time-budget=10000", scheme)
    title = re.search(r"<title>(.*?)</title>", dom, re.S)
    assert title, dom[-500:]
    viewport, content, images, background = title.group(1).split(" / ")
    assert int(viewport) == width
    assert int(content) <= width  # tables scroll inside their own box
    assert int(images) == len(FIGURES)
    assert background == ("rgb(20, 24, 28)" if dark else "rgb(255, 255, 255)")

    browse(frame, f"--screenshot={tmp_path / 'shot.png'}", "--virtual-time-budget=10000", scheme)
    with Image.open(tmp_path / "shot.png") as image:
        pixels = np.asarray(image.convert("L"), dtype=float)[:, :width]
    # not blank: every quarter of the height holds text or a picture
    assert all(part.std() > 5 for part in np.array_split(pixels, 4))
    assert np.median(pixels) < 60 if dark else np.median(pixels) > 200


def test_of_many_losses_curves_show_the_first_and_the_best(tmp_path):
    out = write_comparison(tmp_path / "many", seeds=1)
    few = read_results(out)
    run = few.runs[next(iter(few.runs))][0]
    ap = {f"focal,gamma={i / 10}": 0.3 + 0.01 * (7 * i % 20) for i in range(20)}
    runs = {loss: {0: replace(run, row={**run.row, "ap": value})} for loss, value in ap.items()}
    results = replace(few, runs=runs, sweep={}, images=None, samples=[])
    first = next(iter(ap))
    assert results.in_curves == [loss for loss in ap if loss == first or ap[loss] > sorted(ap.values())[-8]]
    drawn = draw(results)
    assert len(drawn["precision_recall"].axes[0].lines) <= 2 * 8
    assert len(drawn["ap_per_seed"].axes[0].get_yticks()) == 20
    page = write_report(out, results).read_text(encoding="utf-8")
    assert "Of the 20 losses, pictures of curves show 8" in page
    assert all(loss in page for loss in ap)
