"""What to try, why, and the numbers it rests on. Nothing here promises AP."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from detloss.data.batches import Letterboxed
from detloss.detector import DetectorConfig
from detloss.imbalance.figure4 import LossCurve
from detloss.imbalance.locations import LocationCounts, count_locations

PUBLISHED = ((0.0, 0.75, 31.1), (0.5, 0.5, 32.9), (1.0, 0.25, 33.7), (2.0, 0.25, 34.0), (5.0, 0.25, 32.2))
"""(gamma, best alpha, AP on COCO minival) of 1708.02002, table 1b."""


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
        objects_without_positive: over the images looked at.
        objects: over the images looked at.
        negatives_per_positive: by location.
    """

    change: str
    size: int
    locations: int
    objects_without_positive: int
    objects: int
    negatives_per_positive: float


AS_CONFIGURED = "as configured"
NO_RESCUE = "without rescue"


def changes(config: DetectorConfig, size: int) -> Iterator[tuple[str, DetectorConfig, int]]:
    """What might cover lost objects, each as (arguments, configuration, size)."""
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
    """The configured detector and, where it gives objects no positive, each of `changes`.

    Of max-IoU assignment also what would be lost without the rescue of an object's best anchors.

    Args:
        config: as configured.
        data: images fitted into the square.
        counts: of that configuration.
        progress: called with (counted, all).
    """
    rows = [_row(AS_CONFIGURED, data.size, counts)]
    if config.kind == "retinanet":
        without = count_locations(config, data, counts.images, rescue=False)
        rows.append(_row(NO_RESCUE, data.size, without))
    todo = list(changes(config, data.size)) if counts.objects_without_positive else []
    for done, (change, other, size) in enumerate(todo, 1):
        there = data if size == data.size else Letterboxed(data.dataset, size)
        with contextlib.suppress(ValueError):  # k-means finds no more anchors than there are sizes
            rows.append(_row(change, size, count_locations(other, there, counts.images)))
        progress(done, len(todo))
    return rows


def _row(change: str, size: int, counts: LocationCounts) -> Alternative:
    return Alternative(
        change,
        size,
        counts.locations,
        counts.objects_without_positive,
        counts.objects,
        counts.negatives_per_positive,
    )


def recommend(
    config: DetectorConfig,
    counts: LocationCounts,
    alternatives: Sequence[Alternative],
    curves: Sequence[LossCurve],
) -> list[Recommendation]:
    """Prior, alpha and gamma, and which change of the detector covers objects that get no positive.

    Args:
        config: the detector that was looked at.
        counts: its locations.
        alternatives: from `count_alternatives`.
        curves: from `LossBins`, for a model of this data.
    """
    return [
        *_prior(config, counts),
        _published(),
        *_balance(curves),
        _coverage(counts, alternatives),
        *_rescue(alternatives),
    ]


def _prior(config: DetectorConfig, counts: LocationCounts) -> list[Recommendation]:
    if not counts.positives:
        return []
    rate = counts.positives / counts.logits
    bias = math.log(rate / (1 - rate))
    return [
        Recommendation(
            "--detector.prior",
            float(f"{rate:.3g}"),
            f"This part of the logits is positive. A last bias of log(π / (1 - π)) = {bias:.2f} makes the "
            "mean score of an untrained detector right, so that the first steps are not spent on learning "
            "that nearly everything is background (1708.02002, section 3.3, sets .01 without measuring).",
            {
                "positive_logits": counts.positives,
                "logits": counts.logits,
                "positive_rate": rate,
                "bias": bias,
                "configured_prior": config.prior,
                "configured_bias": math.log(config.prior / (1 - config.prior)),
            },
        )
    ]


def _published() -> Recommendation:
    return Recommendation(
        "alpha and gamma, published",
        [f"focal,gamma={gamma:g},alpha={alpha:g}" for gamma, alpha, _ in PUBLISHED],
        "For each gamma the best alpha of the focal loss paper's table 1b. The greater gamma, the less "
        "alpha: gamma takes from the negatives what alpha would. Its AP is COCO's and promises none here.",
        {f"published_ap_gamma_{gamma:g}_alpha_{alpha:g}": published for gamma, alpha, published in PUBLISHED},
    )


def _balance(curves: Sequence[LossCurve]) -> list[Recommendation]:
    """The alpha at which positives and negatives weigh the same, for each gamma."""
    sums = {(curve.label, curve.gamma): curve.total for curve in curves}
    found, evidence = [], {}
    for gamma in dict.fromkeys(curve.gamma for curve in curves):
        positive, negative = sums["positive", gamma], sums["negative", gamma]
        if positive > 0 and negative > 0:
            alpha = negative / (positive + negative)
            found.append(f"focal,gamma={gamma:g},alpha={alpha:.3g}")
            evidence[f"gamma {gamma:g}"] = {"positive": positive, "negative": negative, "alpha": alpha}
    if not found:
        return []
    why = (
        "For each gamma the alpha with which positives and negatives have the same loss at this model, "
        "alpha ΣFL⁺ = (1 - alpha) ΣFL⁻. A point to start from: a model trained with another loss, or not at "
        "all, is balanced by another alpha."
    )
    return [Recommendation("alpha and gamma, balanced here", found, why, evidence)]


def _coverage(counts: LocationCounts, alternatives: Sequence[Alternative]) -> Recommendation:
    lost = counts.sizes[counts.object_positives == 0]
    evidence: dict[str, Any] = {
        "objects": counts.objects,
        "objects_without_positive": len(lost),
        "images": counts.images,
    }
    if not len(lost):
        return Recommendation(
            "strides and anchors",
            "keep",
            f"Each of {counts.objects} objects has at least one location that must find it.",
            evidence,
        )
    now = alternatives[0]
    tried = [row for row in alternatives[1:] if row.change != NO_RESCUE]
    evidence |= {"smallest_lost_px": float(lost.min()), "largest_lost_px": float(lost.max())}
    evidence["counted_again"] = {row.change: row.objects_without_positive for row in tried}
    low, high = f"{lost.min():.0f}", f"{lost.max():.0f}"
    what = (
        f"Objects without a positive, which are never learned: {len(lost)} of {counts.objects}, of "
        f"{low if low == high else f'{low} to {high}'} px. "
    )
    best = min(tried, key=lambda row: (row.objects_without_positive, row.locations), default=now)
    if best.objects_without_positive >= now.objects_without_positive:
        return Recommendation(
            "strides and anchors", "keep", what + "No change that was counted covers more of them.", evidence
        )
    return Recommendation(
        "strides and anchors",
        best.change,
        f"{what}With {best.change} they are {best.objects_without_positive} on the same images, at "
        f"{best.locations} locations an image in place of {now.locations} and "
        f"{best.negatives_per_positive:.0f} negatives a positive in place of "
        f"{now.negatives_per_positive:.0f}.",
        evidence,
    )


def _rescue(alternatives: Sequence[Alternative]) -> Iterator[Recommendation]:
    for row in alternatives:
        if row.change == NO_RESCUE:
            saved = row.objects_without_positive - alternatives[0].objects_without_positive
            yield Recommendation(
                "rescue of an object's best anchors",
                "keep" if saved > 0 else "not needed",
                f"Without it {saved} more of {row.objects} objects would get no positive: no anchor overlaps "
                "them by .5.",
                {"saved": saved, "objects": row.objects},
            )
