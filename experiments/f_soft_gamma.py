"""Does a gamma that grows during training beat a fixed one?

Source: Proposed, not done, in the third of the documents behind this project ("soft gamma": raise gamma in
stages); sample-dependent gamma: Mukhoti et al., 2002.09437 (FLSD-53, for calibration).

Command: python experiments/f_soft_gamma.py

Duration: on two cores see results/f_soft_gamma.md (measured); on a GPU not measured.

Expected: No difference. Early in training nearly everything is hard, where gamma changes little; what it
does late is the same.
"""

from harness import RETINANET, Experiment, difference, embedded, main

FIXED = "focal,gamma=2"
CHANGED = {
    "gamma 0 to 2, linear": "focal,gamma=linear:0:2",
    "gamma 0, 1, 2 in stages": "focal,gamma=stages:0:1:2",
    "gamma 0 to 2, cosine": "focal,gamma=cosine:0:2",
    "gamma 0 to 4, linear": "focal,gamma=linear:0:4",
    "gamma 2 to 0, linear": "focal,gamma=linear:2:0",
    "gamma by sample (FLSD-53)": "flsd",
}
FIXED_1 = "focal,gamma=1"
WITH_ALPHA = {
    "gamma 0, 1, 2 with alpha .75, .25, .25": "focal,gamma=stages:0:1:2,alpha=stages:0.75:0.25:0.25",
    "gamma 0 to 2, alpha .75 to .25": "focal,gamma=linear:0:2,alpha=linear:0.75:0.25",
}
"""The best alpha of each gamma in the paper's tables 1a and 1b; .25, the default, is that of gamma 2."""
E, A, LONG = "embedded", "alpha too", "four times as long"

EXPERIMENT = Experiment(
    __file__,
    __doc__,
    {
        E: embedded(
            (FIXED, CHANGED["gamma 0, 1, 2 in stages"], FIXED_1, *CHANGED.values()), detector=RETINANET
        ),
        A: embedded((FIXED, *WITH_ALPHA.values()), detector=RETINANET),
        LONG: embedded(
            (FIXED, CHANGED["gamma 0, 1, 2 in stages"], *WITH_ALPHA.values()),
            seeds=3,
            detector=RETINANET,
            steps=1400,
        ),
    },
    (
        difference("gamma 0, 1, 2 in stages − fixed 2", (E, CHANGED["gamma 0, 1, 2 in stages"]), (E, FIXED)),
        *(
            difference(f"{words} − fixed 2", (E, loss), (E, FIXED))
            for words, loss in CHANGED.items()
            if "stages" not in words
        ),
        *(difference(f"{words} − fixed 2", (A, loss), (A, FIXED)) for words, loss in WITH_ALPHA.items()),
        difference("gamma 0 to 2, linear − fixed 1", (E, CHANGED["gamma 0 to 2, linear"]), (E, FIXED_1)),
        difference("fixed 1 − fixed 2", (E, FIXED_1), (E, FIXED)),
        difference(
            "1400 steps: gamma 0, 1, 2 in stages − fixed 2",
            (LONG, CHANGED["gamma 0, 1, 2 in stages"]),
            (LONG, FIXED),
        ),
        *(
            difference(f"1400 steps: {words} − fixed 2", (LONG, loss), (LONG, FIXED))
            for words, loss in WITH_ALPHA.items()
        ),
    ),
    columns=("ap", "ap50", "ap75", "ece"),
    answer="no; with alpha held at .25 it is far worse, with alpha scheduled too it is level at best",
    found="""Raising gamma from 0 in training, as proposed, costs 39 to 50 points of AP where alpha
stays at .25: that alpha belongs to gamma 2 (the paper's table 1a has cross entropy with alpha .25 at
10.8 AP, with .75 at 31.1), and what such a start pushes towards background does not come back in 350
steps. With alpha scheduled along with gamma, from .75 to .25, linear is level with a fixed gamma of 2
(-1.8 points, no difference seen), and stages are 7.5 points behind, though not at the strict level.
Lowering gamma from 2 to 0 is level with fixed 2 as well (+2.9, no difference seen), and so is a fixed 1.
Gamma by sample (FLSD-53) is 3.8 points behind in AP, and its calibration error is no lower here. So the
expectation, no difference, holds only where alpha follows gamma.""",
)

if __name__ == "__main__":
    main(EXPERIMENT)
