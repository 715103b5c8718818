"""Calibrators of one run: fitted on its detections, and what they leave of the error on other images."""

import numpy as np

from detloss.lab.evaluate import expected_calibration_error
from detloss.lab.evaluate.calibrator import METHODS, Calibrators, cross_fitted, fit
from detloss.lab.evaluate.matches import Matches
from detloss.lab.statistics import points


def fit_all(matches: Matches, threshold: float, data: str) -> tuple[Calibrators, list[str]]:
    """The three calibrators of all detections with a score of at least `threshold`, and lines to print.

    Raises:
        ValueError: fewer than two images with such detections, so that nothing could be cross-fitted.
    """
    kept = matches.counts[:, 0] & (matches.score >= threshold)
    score, right = matches.score[kept].astype(np.float64), matches.right[kept, 0]
    image = matches.image[kept]
    images = len(np.unique(image))
    if images < 2:
        raise ValueError(
            f"there are detections with a score of at least {threshold:g} on {images} images; a calibrator "
            "needs two at least, to learn from one and be judged on the other: give more, or lower thresholds"
        )
    found = Calibrators(
        **{method: fit(score, right, method) for method in METHODS},
        data=data,
        images=images,
        detections=len(score),
        threshold=threshold,
    )
    before = points(expected_calibration_error(score, right))
    said = [f"fitted on {data}: {len(score)} detections on {images} images; ECE before {before}, after"]
    for method in METHODS:
        after = expected_calibration_error(cross_fitted(score, right, image, method), right)
        said.append(f"  {method} {points(after)}")
    said.append(
        "each half of the images by a fit to the other half; the calibrators are fitted on all of them, so "
        "these images cannot judge them: use others for that"
    )
    return found, said
