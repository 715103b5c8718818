"""Does YOLOv2 gain a point of mAP when its softmax cross entropy becomes softmax focal loss?

Source: The experiment of the third of the documents behind this project: YOLOv2 with Darknet-19 on VOC,
only the class loss replaced, alpha 1: about one point of mAP. YOLOv2: Redmon and Farhadi, 1612.08242.

Command: python experiments/e_softmax_yolov2.py

Duration: on two cores see results/e_softmax_yolov2.md (measured); on a GPU not measured.

Expected: No difference. Of YOLOv2 only positives have a class, so this loss sees no background, and what
is imbalanced, the objectness, is trained as before; BCCD's classes are ten to one, which focal loss may
help.
"""

from harness import Contrast, Experiment, bccd, difference, embedded, main, planned

from detloss.lab.detector import DetectorConfig

CE, FL = "softmax_focal,gamma=0", "softmax_focal,gamma=2"
LOSSES = (CE, FL)


def yolov2(stride: int) -> DetectorConfig:
    """Darknet-19 with a quarter of the paper's width, cut at this stride; five anchors by k-means."""
    return DetectorConfig(kind="yolov2", backbone="darknet19", width=8, channels=48, strides=(stride,))


def compared(setting: str, words: str, column: str) -> Contrast:
    return difference(f"{words}: softmax focal − softmax CE", (setting, FL), (setting, CE), column)


EXPERIMENT = Experiment(
    __file__,
    __doc__,
    {
        "embedded": embedded(LOSSES, detector=yolov2(8)),
        "bccd": bccd(LOSSES, seeds=5, lrs=(0.006, 0.015), steps=600, detector=yolov2(16)),
    },
    planned(
        compared("embedded", "embedded", "voc2007"),
        compared("bccd", "BCCD", "voc2007"),
        compared("embedded", "embedded", "ap"),
        compared("bccd", "BCCD", "ap"),
    ),
    columns=("voc2007", "voc2010", "ap", "ap50", "ece"),
    answer="not seen: undecided by either rule on both data sets, 2 points worse by VOC 2007 on the scenes",
    found="""The point of mAP is not reproduced. By VOC's rule of 2007 softmax focal loss is 2.0 points
worse on the scenes and 0.3 on BCCD, by COCO's AP 0.0 and 0.2; all four are undecided, within ± 2
to 4 points. Of YOLOv2 only positives have a class, so that this loss sees no background. BCCD's
ten red cells for one of the others do not change that. Differences from the document: a quarter of
Darknet-19's width, cut at stride 8 or 16, trained from nothing, and on BCCD for 600 steps, after
which AP50 is 58, where the anchor-free detector has 89 after 400: a longer training may differ.
Scores are far from probabilities with either (ECE 22 to 26).""",
)

if __name__ == "__main__":
    main(EXPERIMENT)
