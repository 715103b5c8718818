"""What to try, why, and the numbers it rests on. Nothing here promises AP."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import DetectorConfig
from detloss.lab.detector.locations import LocationCounts, count_locations
from detloss.lab.inspect.figure4 import LossCurve

PUBLISHED = ((0.0, 0.75, 31.1), (0.5, 0.5, 32.9), (1.0, 0.25, 33.7), (2.0, 0.25, 34.0), (5.0, 0.25, 32.2))
"""(gamma, best alpha, AP on COCO minival) of 1708.02002, table 1b."""
TRIED = (0.01, 0.999)
"""The smallest and the largest alpha that the paper tried (its section 5.1)."""


@dataclass(frozen=True)
class Recommendation:
    """One thing to set or to leave.

    Attributes:
        what: the setting.
        value: to give it, plain JSON types.
        why: the reason, in words.
        evidence: the numbers behind it.
    """

    what: str
    value: Any
    why: str
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Alternative:
    """A change of the detector, counted again on the same images.

    Attributes:
        change: as arguments of the command line; "as configured" for none.
        size: side of the square.
        locations: of one image.
        objects, objects_without_positive: in the images that were counted.
        objects_rescued: those that only the rescue of max-IoU assignment finds (see `LocationCounts`).
        negatives_per_positive: by location.
    """

    change: str
    size: int
    locations: int
    objects_without_positive: int
    objects_rescued: int
    objects: int
    negatives_per_positive: float

    @property
    def unfit(self) -> int:
        """Objects that no location fits: an anchor that overlaps one by less than .5 is no proposal."""
        return self.objects_without_positive + self.objects_rescued


MINING = Recommendation(
    "--loss",
    ["bce,mining=hard:3", "bce,mining=random:3"],
    "In YOLOv2 the objectness is imbalanced, and it is always trained with cross entropy. --loss is about "
    "positives only, so that no alpha or gamma changes the imbalance. Mining, which goes with any loss, "
    "does: it keeps three negatives of the objectness per positive.",
    {},
)
PUBLISHED_ALPHAS = Recommendation(
    "alpha and gamma, published",
    [f"focal,gamma={gamma:g},alpha={alpha:g}" for gamma, alpha, _ in PUBLISHED],
    "For each gamma the best alpha of the focal loss paper's table 1b. The larger gamma, the smaller alpha: "
    "both give the negatives less weight. The paper's AP is that of COCO and promises nothing here.",
    {f"published_ap_gamma_{gamma:g}_alpha_{alpha:g}": published for gamma, alpha, published in PUBLISHED},
)
AS_CONFIGURED = "as configured"
FEW = 0.01
"""Where at most this part of the objects needs the rescue, it is enough."""


def changes(config: DetectorConfig, size: int) -> Iterator[tuple[str, DetectorConfig, int]]:
    """Changes that might give lost objects a location, each as (arguments, configuration, size)."""
    if config.kind == "yolov2":
        stride = config.strides[0] // 2
        if stride >= 4:
            yield f"--detector.strides {stride}", replace(config, strides=(stride,)), size
        count = 2 * config.anchor_count
        yield f"--detector.anchor-count {count}", replace(config, anchors=(), anchor_count=count), size
        yield f"--size {2 * size}", replace(config, anchors=()), 2 * size
        return
    for factor in (0.5, 2.0):
        anchor = config.anchor_size * factor
        yield f"--detector.anchor-size {anchor:g}", replace(config, anchor_size=anchor), size
    if config.kind == "retinanet":
        scales = tuple(sorted({2 ** (k / 3) for k in (-3, -2, -1)} | set(config.anchor_scales)))
        words = " ".join(f"{scale:.3g}" for scale in scales)
        yield f"--detector.anchor-scales {words}", replace(config, anchor_scales=scales), size
        yield "--detector.kind anchor_free", replace(config, kind="anchor_free"), size
    else:
        without_bins = " --detector.bins 0" if config.bins else ""
        yield f"--detector.kind retinanet{without_bins}", replace(config, kind="retinanet", bins=0), size
    more = []
    if config.strides[0] > 4:
        more.append((config.strides[0] // 2, *config.strides))
    if 2 * config.strides[-1] <= size:
        more.append((*config.strides, 2 * config.strides[-1]))
    for strides in more:
        yield f"--detector.strides {' '.join(map(str, strides))}", replace(config, strides=strides), size
    yield f"--size {2 * size}", config, 2 * size


def count_alternatives(
    config: DetectorConfig,
    data: Letterboxed,
    counts: LocationCounts,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> list[Alternative]:
    """The configured detector and, where some objects fit none of its locations, each of `changes`.

    `counts` are those of `config`; `progress` is called with (counted, all).
    """
    rows = [_row(AS_CONFIGURED, data.size, counts)]
    todo = list(changes(config, data.size)) if rows[0].unfit else []
    for done, (change, other, size) in enumerate(todo, 1):
        there = data if size == data.size else Letterboxed(data.dataset, size)
        with contextlib.suppress(ValueError):  # k-means finds no more anchors than there are sizes
            rows.append(_row(change, size, count_locations(other, there, counts.images)))
        progress(done, len(todo))
    return rows


def _row(change: str, size: int, counts: LocationCounts) -> Alternative:
    lost, rescued = counts.objects_without_positive, int(counts.object_rescued.sum())
    by = counts.negatives_per_positive
    return Alternative(change, size, counts.locations, lost, rescued, counts.objects, by)


def recommend(
    config: DetectorConfig,
    counts: LocationCounts,
    alternatives: Sequence[Alternative],
    curves: Sequence[LossCurve],
    softmax: bool = False,
    doubt: str = "",
) -> list[Recommendation]:
    """Prior, alpha and gamma, and which change of the detector covers objects that get no positive.

    Args:
        config, counts: the detector, and its locations.
        alternatives: from `count_alternatives`.
        curves: from `LossBins`, for a model of this data.
        softmax: whether that model has a softmax over classes and background.
        doubt: from `LossBins.doubt`: why no alpha follows from that model.
    """
    yolo = config.kind == "yolov2"
    return [
        *_prior(config, counts, softmax and not yolo),
        *([MINING] if yolo else [PUBLISHED_ALPHAS, *_balance(curves, softmax, doubt)]),
        _coverage(config, counts, alternatives),
        *([_rescue(counts)] if config.kind == "retinanet" else []),
    ]


def _prior(config: DetectorConfig, counts: LocationCounts, softmax: bool) -> list[Recommendation]:
    if not counts.positives:
        return []
    rate = counts.positives / counts.logits
    bias = math.log(rate / (1 - rate))
    evidence = {
        "positive_logits": counts.positives,
        "logits": counts.logits,
        "positive_rate": rate,
        "configured_prior": config.prior,
    }
    if softmax:
        why = "locations is positive. A bias of the background of log(C (1 - π) / π)"
    else:
        unit = "locations" if config.kind == "yolov2" else "logits"
        of_what = " of the objectness" if config.kind == "yolov2" else ""
        why = f"{unit} is positive. A last bias{of_what} of log(π / (1 - π)) = {bias:.2f}"
        evidence |= {"bias": bias, "configured_bias": math.log(config.prior / (1 - config.prior))}
    why = (
        f"This part of the {why} makes the mean score of an untrained detector right, so that the first "
        "steps are not spent on learning that nearly everything is background (1708.02002, section 3.3, sets "
        ".01 without measuring)."
    )
    return [Recommendation("--detector.prior", float(f"{rate:.3g}"), why, evidence)]


def _balance(curves: Sequence[LossCurve], softmax: bool, doubt: str) -> list[Recommendation]:
    """The alpha at which positives and negatives weigh the same, for each gamma."""
    what = "alpha and gamma, balanced here"
    sums = {(curve.label, curve.gamma): curve.total for curve in curves}
    found, left_out, evidence = [], [], {}
    for gamma in dict.fromkeys(curve.gamma for curve in curves):
        positive, negative = sums["positive", gamma], sums["negative", gamma]
        if positive > 0 and negative > 0:
            alpha = negative / (positive + negative)
            evidence[f"gamma {gamma:g}"] = {"positive": positive, "negative": negative, "alpha": alpha}
            if not TRIED[0] <= alpha <= TRIED[1]:
                left_out.append(f"{gamma:g}")
            elif softmax:
                found.append(f"gamma {gamma:g}: {alpha:.3g} of a class, {1 - alpha:.3g} of the background")
            else:
                found.append(f"focal,gamma={gamma:g},alpha={alpha:.3g}")
    if not evidence:
        return []
    if doubt:
        return [Recommendation(what, "none", f"Nothing can be said: {doubt}.", evidence)]
    why = (
        "For each gamma the alpha with which positives and negatives have the same loss at this model, "
        "alpha ΣFL⁺ = (1 - alpha) ΣFL⁻. This is a starting point: for a model trained with another loss, or "
        "not at all, it is another alpha."
    )
    if softmax:
        why += " With a softmax it is the tensor alpha of softmax_focal_loss, which --loss cannot set."
    if left_out:
        why += (
            f" Left out is gamma {', '.join(left_out)}, whose alpha lies outside {TRIED[0]} to {TRIED[1]}, "
            "the range that the paper tried."
        )
    return [Recommendation(what, found or "none", why, evidence)]


def _coverage(
    config: DetectorConfig, counts: LocationCounts, alternatives: Sequence[Alternative]
) -> Recommendation:
    what = "strides and anchors"
    lost = counts.object_positives == 0
    sizes = counts.sizes[lost | counts.object_rescued]
    evidence: dict[str, Any] = {
        "objects": counts.objects,
        "objects_without_positive": int(lost.sum()),
        "objects_rescued": int(counts.object_rescued.sum()),
        "images": counts.images,
    }
    if not len(sizes):
        why = f"{counts.objects} of {counts.objects} objects have a location that must find them."
        return Recommendation(what, "keep", why, evidence)
    now, *tried = alternatives
    evidence |= {"smallest_px": float(sizes.min()), "largest_px": float(sizes.max())}
    evidence["counted_again"] = {
        row.change: {"objects_without_positive": row.objects_without_positive, "rescued": row.objects_rescued}
        for row in tried
    }
    low, high = f"{sizes.min():.0f}", f"{sizes.max():.0f}"
    why = f"{_unfit(now)} ({low if low == high else f'{low} to {high}'} px). "
    # ATSS asks for no overlap of .5: of two kinds, the one with fewer unfit may leave more without anything.
    no_worse = [row for row in tried if row.objects_without_positive <= now.objects_without_positive]
    best = min(no_worse, key=lambda row: (row.unfit, row.locations), default=now)
    if not now.objects_without_positive and now.unfit <= FEW * now.objects:
        return Recommendation(what, "keep", f"{why}So few are what the rescue is for.", evidence)
    if best.unfit >= now.unfit:
        why += "No change that was counted leaves fewer."
        if sizes.max() < config.strides[0]:
            why += f" They are smaller than the finest cell, {config.strides[0]} px: try a far larger --size."
        return Recommendation(what, "keep", why, evidence)
    before = f" in place of {now.negatives_per_positive:.0f}" if counts.positives else ""
    return Recommendation(
        what,
        best.change,
        f"{why}With {best.change}, on the same images: {_unfit(best)}; {best.locations} locations per image "
        f"in place of {now.locations} and {best.negatives_per_positive:.0f} negatives per positive{before}.",
        evidence,
    )


def _unfit(row: Alternative) -> str:
    text = f"{row.objects_without_positive} of {row.objects} objects have no location that must find them"
    if row.objects_rescued:
        text += f", and {row.objects_rescued} only anchors that overlap them by less than .5"
    return text


def _rescue(counts: LocationCounts) -> Recommendation:
    saved = int(counts.object_rescued.sum())
    return Recommendation(
        "rescue of an object's best anchors",
        "keep" if saved else "not needed",
        f"Without it {saved} more of {counts.objects} objects would get no positive: no anchor overlaps them "
        "by .5, or another object has that anchor.",
        {"saved": saved, "objects": counts.objects},
    )
