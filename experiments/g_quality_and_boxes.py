"""Which classification loss (CE, FL, QFL, VFL) with which box loss, and with or without DFL?

Source: Li et al., 2006.04388 (ATSS 39.2, with QFL 39.9, with DFL 39.5, with both 40.2); Zhang et al.,
2008.13367 (39.0, with VFL 40.1); Zheng et al., 1911.08287 (DIoU, CIoU); EIoU: Zhang et al., 2101.08158.

Command: python experiments/g_quality_and_boxes.py

Duration: on two cores see results/g_quality_and_boxes.md (measured); on a GPU not measured.

Expected: QFL and VFL above FL, by what their scores know of the box; the IoU family above L1 and close to
one another; DFL worth little on small objects with sharp edges. L1 is that of boxes, each side divided by
the true box's width or height (l1.py). On the scenes each pair has the better of two box weights as
well as of two rates.
"""

from dataclasses import replace

from figures import Against, against
from harness import Experiment, Results, bccd, difference, embedded, main

from detloss.lab.compare.config import CompareConfig
from detloss.lab.detector import DetectorConfig

LOSSES = {"CE": "bce", "FL": "focal", "QFL": "quality_focal", "VFL": "varifocal"}
BOXES = {
    "GIoU": "giou",
    "L1": "experiments/l1.py:l1",
    "IoU": "iou",
    "DIoU": "diou",
    "CIoU": "ciou",
    "EIoU": "eiou",
}
CLASSES = tuple(LOSSES.values())
WITH_DFL = ("FL", "QFL")
WEIGHTS = (2.0, 15.0)
PLAIN, DFL = DetectorConfig(), DetectorConfig(bins=16)


def tuned(losses: tuple[str, ...], boxes: tuple[str, ...], detector: DetectorConfig) -> CompareConfig:
    """On the scenes, with two box weights to choose from: the scales of the losses differ."""
    config = embedded(losses, steps=600, detector=detector, box_weights=WEIGHTS)
    return replace(config, box_losses=boxes)


def key(loss: str, box: str) -> tuple[str, str]:
    return "embedded", f"{LOSSES[loss]}+{'l1' if box == 'L1' else BOXES[box]}"


def plot(results: Results) -> Against:
    order = ("L1", "IoU", "GIoU", "DIoU", "CIoU", "EIoU")
    by_box = {loss: {box: results.shown(*key(name, box)) for box in order} for name, loss in LOSSES.items()}
    with_dfl = {
        loss: {
            "embedded": results.shown(*key(name, "GIoU")),
            "with DFL": results.shown("embedded DFL", loss),
            "BCCD": results.shown("bccd", loss),
            "BCCD with DFL": results.shown("bccd DFL", loss),
        }
        for name, loss in LOSSES.items()
    }
    return against(
        [
            Against("AP by box loss, embedded scenes", "box loss", "AP", by_box),
            Against("With and without DFL, box loss GIoU", "data", "AP", with_dfl),
        ]
    )


def over_boxes(first: str, second: str):
    """Mean over the six box losses, in each seed."""
    return difference(
        f"{first} − {second}, mean of six box losses",
        [key(first, box) for box in BOXES],
        [key(second, box) for box in BOXES],
    )


def over_losses(first: str, second: str):
    return difference(
        f"{first} − {second}, mean of four classification losses",
        [key(loss, first) for loss in LOSSES],
        [key(loss, second) for loss in LOSSES],
    )


def dfl(words: str, setting: str, without: list[tuple[str, str]]):
    with_it = [(setting, LOSSES[name]) for name in WITH_DFL]
    return difference(f"{words}: DFL − none, mean of FL and QFL", with_it, without)


EXPERIMENT = Experiment(
    __file__,
    __doc__,
    {
        "embedded": tuned(CLASSES, tuple(BOXES.values()), PLAIN),
        "embedded DFL": tuned(tuple(LOSSES[name] for name in WITH_DFL), ("giou",), DFL),
        "bccd": bccd(CLASSES, box_weights=WEIGHTS),
        "bccd DFL": bccd(tuple(LOSSES[name] for name in WITH_DFL), box_weights=WEIGHTS, detector=DFL),
    },
    (
        over_boxes("QFL", "FL"),
        over_boxes("VFL", "FL"),
        over_boxes("FL", "CE"),
        over_boxes("QFL", "CE"),
        over_boxes("VFL", "CE"),
        difference("GIoU: FL − CE", key("FL", "GIoU"), key("CE", "GIoU")),
        difference("GIoU: QFL − FL", key("QFL", "GIoU"), key("FL", "GIoU")),
        over_losses("GIoU", "L1"),
        over_losses("GIoU", "IoU"),
        over_losses("DIoU", "GIoU"),
        over_losses("CIoU", "GIoU"),
        over_losses("EIoU", "GIoU"),
        dfl("embedded, GIoU", "embedded DFL", [key(name, "GIoU") for name in WITH_DFL]),
        difference("BCCD, GIoU: QFL − FL", ("bccd", "quality_focal"), ("bccd", "focal")),
        difference("BCCD, GIoU: VFL − FL", ("bccd", "varifocal"), ("bccd", "focal")),
        difference("BCCD, GIoU: FL − CE", ("bccd", "focal"), ("bccd", "bce")),
        dfl("BCCD, GIoU", "bccd DFL", [("bccd", LOSSES[name]) for name in WITH_DFL]),
    ),
    columns=("ap", "ap50", "ap75", "score_iou_correlation"),
    plot=plot,
    answer="DFL gains 2.8 points; QFL and VFL above FL and any box loss above another: no difference seen",
    found="""After 600 steps on the scenes the means are in the expected order, VFL and QFL above FL
above CE with every box loss, but three seeds tell none of it from zero: QFL is 1.3 ± 1.8 points above FL
over the six box losses, VFL 1.8 ± 2.2, FL 3.2 ± 3.3 above CE. CE is the one whose seeds scatter, by 13
points with IoU loss. Which box loss hardly matters: L1 of boxes, each side divided by the true box's, is
as good as GIoU (0.4 ± 2.1), and DIoU, CIoU and EIoU are 0.8 to 1.5 above it, no difference seen. DFL
gains 2.8 ± 2.2 points on the scenes, against what was expected, and 0.9 ± 1.2 on BCCD, no difference
seen; the way a box is read from the output changes with it. On BCCD CE, FL, QFL and VFL lie within a
point, 55.8 to 56.5. This is a short training: after 1400 steps, in h, QFL and VFL are not above FL.""",
)

if __name__ == "__main__":
    main(EXPERIMENT)
