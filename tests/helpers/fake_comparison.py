"""A complete folder of a comparison with made-up numbers, for the tests of the report and its figures."""

import csv
import json
from pathlib import Path

import numpy as np

from detloss.lab.data.sample import Sample
from detloss.lab.evaluate import Detections, evaluate, to_coco_results
from detloss.lab.evaluate.coco import ALL, count

NAMES = ("ring", "bar", "cross")
LOSSES = ("bce", "balanced_bce", "focal", "quality_focal")
#        chance to find an object, noise of a box, mistakes an image, how much scores follow IoU
SKILL = {
    "bce": (0.72, 0.12, 2.5, 0.2),
    "balanced_bce": (0.80, 0.10, 2.0, 0.25),
    "focal": (0.93, 0.06, 1.5, 0.5),
    "quality_focal": (0.93, 0.06, 1.2, 0.9),
}
STEPS, IMAGES = 400, 24


def truths(seed: int = 0, images: int = IMAGES) -> list[Sample]:
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(images):
        n = int(rng.integers(0, 4))
        corner, size = rng.uniform(4, 80, (n, 2)), rng.uniform(14, 44, (n, 2))
        boxes = np.concatenate([corner, corner + size], axis=1).round().astype(np.float32)
        labels = rng.integers(0, len(NAMES), n)
        image = rng.integers(90, 150, (128, 128, 3)).astype(np.uint8)
        for (x1, y1, x2, y2), label in zip(boxes.astype(int), labels):
            image[y1:y2, x1:x2, label] = 220
        samples.append(Sample(image, boxes, labels, f"scene-{i:03d}", np.zeros(n, bool)))
    return samples


def found(loss: str, seed: int, samples: list[Sample]) -> list[Detections]:
    rng = np.random.default_rng([seed, LOSSES.index(loss)])
    chance, noise, mistakes, honesty = SKILL[loss]
    detections = []
    for sample in samples:
        hit = rng.uniform(size=len(sample.boxes)) < chance
        size = np.tile(sample.boxes[hit, 2:] - sample.boxes[hit, :2], 2)
        shift = rng.normal(0, noise, size.shape)
        good = (sample.boxes[hit] + shift * size).astype(np.float32)
        score = (1 - honesty) * rng.uniform(0.3, 1, hit.sum()) + honesty * np.exp(-2 * np.abs(shift).sum(1))
        n = rng.poisson(mistakes)
        corner = rng.uniform(0, 90, (n, 2))
        bad = np.concatenate([corner, corner + rng.uniform(8, 40, (n, 2))], axis=1).astype(np.float32)
        detections.append(
            Detections(
                np.concatenate([good, bad]),
                np.concatenate([score, 0.6 * rng.uniform(size=n) ** 2]).astype(np.float32),
                np.concatenate([sample.labels[hit], rng.integers(0, len(NAMES), n)]),
            )
        )
    return detections


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def write_run(folder: Path, loss: str, seed: int, samples: list[Sample]) -> dict:
    """One run; returns its row of results.csv."""
    rng = np.random.default_rng([7, seed, LOSSES.index(loss)])
    detections = found(loss, seed, samples)
    evaluation = evaluate(detections, samples, NAMES)
    seconds, memory = 30 + 2 * LOSSES.index(loss) + seed, 600.0 + 5 * seed
    recipe = {"data": "embedded", "size": 128, "steps": STEPS, "batch": 16, "optimizer": "adamw"}
    write_json(
        folder / "config.json",
        {"loss": loss, "box_loss": "giou", "lr": 0.01, "box_weight": 2.0, "seed": seed, **recipe},
    )
    clipped = 0.08 + 0.02 * seed
    metrics = {"seconds": seconds, "peak_memory_mb": memory, "clipped": clipped, **evaluation.to_dict()}
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "detections.json", to_coco_results(detections, [s.id for s in samples]))
    count(detections, samples, NAMES, [ALL]).matches.save(folder / "matches.npz")
    step = np.arange(1, STEPS + 1)
    share = 0.25 + 0.5 * np.exp(-step / 80) * (1 if "focal" in loss else -0.4) + rng.normal(0, 0.05, STEPS)
    log = [
        {
            "step": s,
            "lr": 0.01 * min(s / 40, 0.5 + 0.5 * np.cos(np.pi * s / STEPS)),
            "loss": (c := np.exp(-s / 150) * rng.uniform(0.8, 1.2)) + 2 * (b := c / 2),
            "classification_loss": c,
            "box_loss": b,
            "positive_loss_share": np.clip(p, 0, 1),
        }
        for s, p in zip(step, share)
    ]
    write_csv(folder / "log.csv", log)
    marks = [STEPS // 4, STEPS // 2, 3 * STEPS // 4, STEPS]
    write_csv(
        folder / "evaluations.csv",
        [
            {"step": s, "ap": evaluation.ap * (s / STEPS) ** 0.5, "ap50": 0.9, "ap75": 0.5, "ece": 0.1}
            for s in marks
        ],
    )
    row = {"classification_loss": loss, "box_loss": "giou", "seed": seed}
    row |= {name: metrics[name] for name in ("ap", "ap50", "ap75")} | {"ece": evaluation.calibration.ece}
    row |= {"seconds": seconds, "peak_memory_mb": memory, "ap_small": evaluation.ap_small}
    row |= {"ece_threshold": 0.05, "ece_recall": evaluation.calibration.recall}
    row |= {"score_iou_correlation": evaluation.score_iou_correlation, "lr": 0.01, "box_weight": 2.0}
    return row | {"steps": STEPS, "clipped": clipped}


def sweep_rows(loss: str) -> list[dict]:
    rng = np.random.default_rng(LOSSES.index(loss))
    rows = []
    for lr, weight in ((0.003, 2.0), (0.01, 2.0), (0.03, 2.0), (0.01, 6.0)):
        ap = SKILL[loss][0] * 0.7 * (1 - 0.3 * abs(np.log10(lr / 0.01)))
        row = {"classification_loss": loss, "box_loss": "giou", "steps": 200, "lr": lr}
        row |= {"box_weight": weight, "ap": ap * rng.uniform(0.9, 1), "seconds": 200 / 12}
        rows.append(row | {"chosen": int(lr == 0.01 and weight == 2.0)})
    return rows


def write_comparison(out: Path, losses: tuple[str, ...] = LOSSES, seeds: int = 3) -> Path:
    """The folder that ``detloss compare`` leaves, before its report is written."""
    samples = truths()
    recipe = {"data": "embedded", "size": 128, "steps": STEPS, "batch": 16, "optimizer": "adamw"}
    write_json(
        out / "config.json",
        {
            "losses": losses,
            "box_losses": ["giou"],
            "seeds": seeds,
            "lr": None,
            "box_weight": None,
            "lrs": [0.003, 0.01, 0.03],
            "box_weights": [2.0, 6.0],
            "held_out": 0.2,
            "workers": 2,
            **recipe,
        },
    )
    write_json(
        out / "versions.json",
        {
            "detloss": "0.0.test",
            "torch": "0.0",
            "numpy": "0.0",
            "python": "3.11",
            "platform": "made up",
            "cpu": "made up",
            "device": "cpu",
            "workers": 2,
            "threads": 1,
            "commit": None,
        },
    )
    counts = {name: int(sum((s.labels == i).sum() for s in samples)) for i, name in enumerate(NAMES)}
    split = {"images": IMAGES, "empty": 6, "objects": sum(counts.values()), "ignored": 0, "per_class": counts}
    write_json(
        out / "data.json",
        {
            "source": "embedded",
            "names": NAMES,
            "class_map": {name: i for i, name in enumerate(NAMES)},
            "train": split,
            "val": split,
            "notes": ["3 images without objects"],
            "measured_images": IMAGES,
            "locations": 1344,
            "negatives_per_positive": 182.4,
            "negatives_per_positive_logits": 549.2,
            "objects_without_positive": 0.0,
        },
    )
    runs = [(loss, seed) for loss in losses for seed in range(seeds)]
    rows = [write_run(out / "runs" / f"{loss}+giou" / f"seed-{k}", loss, k, samples) for loss, k in runs]
    write_csv(out / "results.csv", rows)
    write_csv(out / "sweep.csv", [row for loss in losses for row in sweep_rows(loss)])
    return out
