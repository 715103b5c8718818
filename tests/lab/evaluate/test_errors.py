"""TIDE's kinds of error: one example of each by hand, and tidecv's own numbers where it is installed."""

import contextlib
import io
import warnings

import numpy as np
import pytest

from detloss.lab.evaluate import evaluate
from detloss.lab.evaluate.detections import to_coco_results, xywh
from helpers.detections import found, scene, truth

BOX = (0.0, 0.0, 10.0, 10.0)
OTHER = (50.0, 0.0, 60.0, 10.0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Beside a right detection of lower score, so that a mistake costs half of the precision.
        pytest.param([(*BOX, 1, 0.9), (*OTHER, 0, 0.8)], {"classification": 0.5}, id="wrong class"),
        pytest.param([(0, 0, 10, 4, 0, 0.9), (*OTHER, 0, 0.8)], {"localisation": 0.75}, id="IoU .4"),
        pytest.param([(0, 0, 10, 4, 1, 0.9), (*OTHER, 0, 0.8)], {"missed": 0.5}, id="wrong class, IoU .4"),
        pytest.param([(*OTHER, 0, 0.9), (0, 0, 10, 9, 0, 0.8), (*BOX, 0, 0.85)], {}, id="duplicate, last"),
        pytest.param(
            [(90, 90, 99, 99, 0, 0.9), (*OTHER, 0, 0.8), (*BOX, 0, 0.7)],
            {"background": 1 / 3},
            id="background",
        ),
        pytest.param([(*OTHER, 0, 0.8)], {"missed": 0.5}, id="missed"),
    ],
)
def test_by_hand(rows, expected):
    errors = evaluate([found(*rows)], [truth((*BOX, 0), (*OTHER, 0))], ["a", "b"]).errors
    assert errors == pytest.approx(
        dict.fromkeys(("classification", "localisation", "both", "duplicate", "background", "missed"), 0.0)
        | expected,
        abs=0.01,
    )


@pytest.mark.clients
@pytest.mark.parametrize("seed", range(6))
def test_as_tidecv(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        tidecv = pytest.importorskip("tidecv")
    detections, truths = scene(np.random.default_rng(seed), 60, 4, 0.15)
    objects, results = tidecv.Data("truth"), tidecv.Data("found")
    for image, annotation in enumerate(truths):
        objects.add_image(image, str(image))
        annotation.ignored[:] = False
        for box, label in zip(xywh(annotation.boxes), annotation.labels):
            objects.add_ground_truth(image, int(label), box.tolist())
    for row in to_coco_results(detections, range(len(truths))):
        results.add_detection(row["image_id"], row["category_id"], row["score"], row["bbox"])
    tide = tidecv.TIDE()
    with contextlib.redirect_stdout(io.StringIO()):
        tide.evaluate(objects, results, mode=tidecv.TIDE.BOX)
        theirs = next(iter(tide.get_main_errors().values()))
    ours = evaluate(detections, truths, [str(i) for i in range(4)]).errors
    # tidecv's recalls are k / 100, COCO's those of linspace: one of just that size falls on either side.
    np.testing.assert_allclose(
        list(ours.values()),
        [theirs[s] / 100 for s in ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")],
        atol=2e-3,
    )
