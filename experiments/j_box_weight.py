"""How much does AP depend on the weight of the box loss, and does a weight that sets itself do as well?

Source: Chen et al., 1909.04868, COCO, RetinaNet with ResNet-50, box AP on test-dev: focal loss 36.6, cross
entropy with its scale guided by the box loss (and other initial values) 36.9; with ResNet-101 38.8 and 39.1
(their repository, sampling-free).

Command: python experiments/j_box_weight.py

Duration: on two cores see results/j_box_weight.md (measured); on a GPU not measured.

Expected: cross entropy needs a larger weight than focal loss; against the ratio of the class term to the
weighted box term the curves of the losses lie closer together than against the weight; guided balance, whose
ratio is 1, is close to the best weight of each loss. One learning rate for all, the one that most losses
took in h: .008 on the scenes, .004 on BCCD. 350 steps on the scenes are those of `detloss compare`, whose
default is in question.
"""

from figures import Against, against
from harness import ADAPTIVE, Experiment, Results, bccd, difference, embedded, main, planned

LOSSES = {"CE": "bce", "FL": "focal", "QFL": "quality_focal"}
WEIGHTS = (2.0, 15.0, 0.5, 1.0, 4.0, 8.0, 30.0, 60.0)  # first those that guided balance is held against
DATA = {
    "embedded": lambda **more: embedded(tuple(LOSSES.values()), lr=0.008, steps=350, **ADAPTIVE, **more),
    "bccd": lambda **more: bccd(tuple(LOSSES.values()), lr=0.004, steps=250, **ADAPTIVE, **more),
}
GUIDED = "guided"


def setting(data: str, weight: float | str) -> str:
    return f"{data} {weight if weight == GUIDED else f'{weight:g}'}"


def plot(results: Results) -> Against:
    panels = []
    for data, title in (("embedded", "Embedded scenes"), ("bccd", "BCCD")):
        by_weight, by_ratio = {}, {}
        for name, loss in LOSSES.items():
            shown = {weight: results.shown(setting(data, weight), loss) for weight in WEIGHTS}
            by_weight[name] = {weight: ap for weight, ap in shown.items() if ap}
            by_ratio[name] = {
                results.mean((setting(data, weight), loss), "class_to_box"): ap
                for weight, ap in by_weight[name].items()
            }
            if ap := results.shown(setting(data, GUIDED), loss):
                by_ratio[f"{name} guided"] = {1.0: ap}
        if any(by_weight.values()):
            panels += [
                Against(f"{title}: AP against the weight", "box weight", "AP", by_weight, "log"),
                Against(
                    f"{title}: against the ratio", "class term : weighted box term", "AP", by_ratio, "log"
                ),
            ]
    return against(panels)


EXPERIMENT = Experiment(
    __file__,
    __doc__,
    {
        setting(data, weight): make(balance="guided") if weight == GUIDED else make(box_weights=(weight,))
        for data, make in DATA.items()
        for weight in (GUIDED, *WEIGHTS)
    },
    planned(
        *(
            difference(
                f"{where}, {name}: guided − weight {weight:g}",
                (setting(data, GUIDED), loss),
                (setting(data, weight), loss),
            )
            for data, where in (("embedded", "scenes"), ("bccd", "BCCD"))
            for name, loss in LOSSES.items()
            for weight in (2.0, 15.0)
        )
    )
    + tuple(
        difference(
            f"{where}, the three losses together: guided − weight {weight:g}",
            [(setting(data, GUIDED), loss) for loss in LOSSES.values()],
            [(setting(data, weight), loss) for loss in LOSSES.values()],
        )
        for data, where in (("embedded", "scenes"), ("bccd", "BCCD"))
        for weight in (2.0, 4.0, 8.0)
    ),
    columns=("ap", "ap50", "ap75"),
    plot=plot,
    answer="each loss has a broad best range; guided balance is within 3 points of it, undecided",
    found="""Each loss has a broad best range of weights. On the scenes CE is best at 4 to 8 (55 points),
focal loss at 1 to 4 (57 to 60), QFL at 1 to 8 (56 to 58); CE falls below that, to 42 points at .5, and
all fall above it, to about 40 at 60. On BCCD CE is best from 8 on (54 points; 48 at .5), focal loss and
QFL lie between 53 and 55 from 1 to 60. Against the ratio of the class term to the weighted box term the
curves lie closer together: all three on BCCD, on the scenes focal loss and QFL, that of CE apart. Guided
balance, whose ratio is 1, is on the scenes .3 above the best weight of CE and 2.4 and 1.9 below those of
focal loss and QFL, on BCCD 1.0 to 1.1 below the best of each. With three seeds all planned differences
are undecided: guided balance is not shown to be equivalent to a weight of its own for each loss, so the
sweep stays the default of `detloss compare`. The one weight 4 is, as guided balance is, within 3 points
of each loss's best on both data sets.""",
)

if __name__ == "__main__":
    main(EXPERIMENT)
