"""How does the gap between CE and focal loss grow with the imbalance, from 1:10 to above 1:2000?

Source: Lin et al., 1708.02002: class imbalance is said to be the reason why one-stage detectors trained
with CE stay behind. There, on COCO, FL is 2.9 AP above the best alpha-balanced CE, at about 1:1000.

Command: python experiments/i_imbalance.py

Duration: on two cores see results/i_imbalance.md (measured); on a GPU not measured.

Expected: No gap at 1:10, a growing one beyond 1:100, larger without the prior bias. From 1:70 on every
scene holds one object, of the same size and among as many distractors, so that each step sees as many
objects everywhere and only empty background is added, by larger scenes. At 1:20 there are three objects a
scene, and at 1:10 two levels with one anchor instead of three with three.
"""

from dataclasses import replace

from harness import Experiment, Results, change, difference, embedded, main

from detloss import plots
from detloss.config import CompareConfig
from detloss.data import SceneConfig
from detloss.detector import DetectorConfig

SPARSE = DetectorConfig(
    "retinanet",
    strides=(4, 8),
    anchor_size=5.0,
    anchor_scales=(1.0,),
    anchor_ratios=(1.0,),
    width=8,
    channels=24,
)
DENSE = DetectorConfig("retinanet", anchor_scales=(1.0,), width=8, channels=24)
SETTINGS = {
    "1:10": (48, 3, SPARSE),
    "1:20": (48, 3, DENSE),
    "1:70": (48, 1, DENSE),
    "1:300": (96, 1, DENSE),
    "1:1200": (192, 1, DENSE),
    "1:2200": (256, 1, DENSE),
}
"""Side of the scenes, objects in each, detector; the names are rough, the ratios are measured."""


def comparison(setting: str, prior: float, *losses: str) -> CompareConfig:
    size, objects, detector = SETTINGS[setting]
    return embedded(
        losses,
        lrs=(0.003, 0.008, 0.02),
        scenes=SceneConfig(
            size=size, train=1600, objects=(objects, objects), object_size=(14.0, 24.0), empty=0.0
        ),
        size=size,
        detector=replace(detector, prior=prior),
        steps=300,
    )


def gap(setting: str, without: str = ""):
    words = "FL − CE without the prior" if without else "FL − CE"
    return difference(f"{setting}: {words}", (setting, "focal"), (setting + without, "bce"))


WITHOUT = " no prior"
BOTH = ("1:10", "1:300", "1:2200")
"""Where cross entropy is also trained without the prior bias."""


def plot(results: Results) -> plots.Against:
    there = [setting for setting in results.settings() if not setting.endswith(WITHOUT)]
    gaps: dict = {"bce": {}, "bce, no prior bias": {}}
    ap: dict = {"focal": {}, "bce": {}, "bce, no prior bias": {}}
    for setting in there:
        x = results.negatives(setting)
        focal = results.of((setting, "focal"))
        for name, without in zip(gaps, ("", WITHOUT)):
            ce = results.of((setting + without, "bce"))
            if ce:
                gaps[name][x] = [100 * (focal[seed] - ce[seed]) for seed in focal if seed in ce]
                ap[name][x] = results.shown(setting + without, "bce")
        ap["focal"][x] = results.shown(setting, "focal")
    x = "negatives per positive location"
    return plots.against(
        [
            plots.Against(
                "What focal loss gains over cross entropy",
                x,
                "AP of focal − AP of bce",
                gaps,
                "log",
                zero=True,
            ),
            plots.Against("AP of each", x, "AP", ap, "log"),
        ]
    )


EXPERIMENT = Experiment(
    __file__,
    __doc__,
    {
        **{setting: comparison(setting, 0.01, "focal", "bce") for setting in SETTINGS},
        **{setting + WITHOUT: comparison(setting, 0.5, "bce") for setting in BOTH},
    },
    (
        change("FL − CE: gap at 1:2200, less that at 1:10", gap("1:2200"), gap("1:10")),
        change(
            "FL − CE without the prior: gap at 1:2200, less that at 1:10",
            gap("1:2200", WITHOUT),
            gap("1:10", WITHOUT),
        ),
        *map(gap, SETTINGS),
        *(gap(setting, WITHOUT) for setting in BOTH),
    ),
    plot=plot,
    found="",
)

if __name__ == "__main__":
    main(EXPERIMENT)
