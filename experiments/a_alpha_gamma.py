"""How do cross entropy's alpha and focal loss's gamma change AP?

Source: Lin et al., 1708.02002, tables 1a and 1b, RetinaNet on COCO. CE by alpha: .10 0.0, .25 10.8, .50
30.2, .75 31.1, .90 30.8, .99 28.7, .999 25.1. FL by gamma, with the alpha best for it: 0 (.75) 31.1, .5
(.50) 32.9, 1 (.25) 33.7, 2 (.25) 34.0, 5 (.25) 32.2.

Command: python experiments/a_alpha_gamma.py

Duration: on two cores see results/a_alpha_gamma.md (measured); on a GPU not measured.

Expected: A broad optimum of alpha round .75, a collapse at .10; AP that rises up to gamma 2 and falls at
5, both with smaller differences than on COCO: here are 1:100 to 1:300 negatives, there 1:1000 and more.
"""

from figures import Against, against
from harness import RETINANET, Experiment, Results, bccd, difference, embedded, main, planned

ALPHAS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
GAMMAS = {0.0: 0.75, 0.5: 0.5, 1.0: 0.25, 2.0: 0.25, 5.0: 0.25}
"""gamma → alpha, of table 1b."""


def ce(alpha: float) -> str:
    return f"bce,alpha={alpha:g}"


def fl(gamma: float) -> str:
    """Named as in the other experiments, which makes equal runs once; gamma 2 and alpha .25 are defaults."""
    if not gamma:
        return ce(GAMMAS[gamma])
    name = "focal" if gamma == 2 else f"focal,gamma={gamma:g}"
    return name if GAMMAS[gamma] == 0.25 else f"{name},alpha={GAMMAS[gamma]:g}"


def plot(results: Results) -> Against:
    by_alpha = {alpha: results.shown("embedded", ce(alpha)) for alpha in ALPHAS}
    by_gamma = {gamma: results.shown("embedded", fl(gamma)) for gamma in GAMMAS}
    return against(
        [
            Against("Cross entropy by alpha", "alpha (log odds)", "AP", {"CE": by_alpha}, scale="logit"),
            Against("Focal loss by gamma, each with the paper's alpha", "gamma", "AP", {"FL": by_gamma}),
        ]
    )


E = "embedded"
EXPERIMENT = Experiment(
    __file__,
    __doc__,
    {
        E: embedded(
            tuple(dict.fromkeys([ce(0.5), fl(2.0), *map(ce, ALPHAS), *map(fl, GAMMAS)])), detector=RETINANET
        ),
        "bccd": bccd((ce(0.5), ce(0.75), fl(2.0))),
    },
    (
        *planned(
            difference("FL gamma 2 − CE alpha .75", (E, fl(2.0)), (E, ce(0.75))),
            difference("FL gamma 2 − CE alpha .5", (E, fl(2.0)), (E, ce(0.5))),
            difference("CE alpha .75 − alpha .5", (E, ce(0.75)), (E, ce(0.5))),
            difference("CE alpha .1 − alpha .5", (E, ce(0.1)), (E, ce(0.5))),
            difference("CE alpha .999 − alpha .75", (E, ce(0.999)), (E, ce(0.75))),
            difference("FL gamma 2 − gamma .5", (E, fl(2.0)), (E, fl(0.5))),
            difference("FL gamma 5 − gamma 2", (E, fl(5.0)), (E, fl(2.0))),
        ),
        difference("FL gamma 2 − CE alpha .1", (E, fl(2.0)), (E, ce(0.1))),
        difference("BCCD: FL gamma 2 − CE alpha .5", ("bccd", fl(2.0)), ("bccd", ce(0.5))),
        difference("BCCD: CE alpha .75 − alpha .5", ("bccd", ce(0.75)), ("bccd", ce(0.5))),
    ),
    plot=plot,
    answer="alpha .999 is far below .75; gamma .5 to 5 and the rest are undecided with three seeds",
    found="""Of alpha: .999 is 32 points below .75 (paper: 6). From .5 to .9 the means lie within a
point, and alpha .1 and .25 do not collapse, as they do in the paper: .1 has the highest mean, 2.6
points above .5, undecided. Of gamma: .5, 1 and 2 have means within half a point; gamma 5 is 10.8
points below gamma 2, which is undecided too, since its own seeds scatter by as much. Focal loss is
ahead of CE with alpha .5 or .75 by 2 points (paper: 3 to 4), undecided, and level with CE at alpha
.1. What cannot be told apart here: alpha is also a weight of the class loss against the box loss,
which is 2 × GIoU for all. CE with alpha .5 is half of plain CE, and 1.6 points above it (77.5, in
c); c and j give each loss its own box weight. That alpha .1 is the best was seen in these very
runs.""",
)

if __name__ == "__main__":
    main(EXPERIMENT)
