"""Draws the curves of docs/losses.md and docs/curves.md: `python docs/figures_losses.py`."""

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from detloss.lab.curves.figures import loss_curves
from detloss.lab.curves.tables import (
    Curve,
    CurvesConfig,
    Panel,
    Panels,
    curves,
    figures,
    label_panels,
    soft_panel,
)
from detloss.lab.figures import save
from detloss.losses import distribution_focal_loss

FOLDER = Path(__file__).parent / "figures"


def varifocal() -> Panels:
    """Positives by quality, and negatives by gamma."""
    by_quality = [
        replace(curves(["varifocal"], quality)[0], name=f"q = {quality:g}") for quality in (0.2, 0.5, 0.8, 1)
    ]
    negatives = curves(["bce", *(f"varifocal,gamma={gamma}" for gamma in (1, 2, 3))], 0.0)
    return (
        Panel("positives by quality", "predicted probability $p$", "loss", tuple(by_quality)),
        Panel("negatives", "predicted probability $p$", "loss", negatives),
    )


def dfl() -> Panels:
    """The shares that a distance asks of bins: softmax minus gradient; and the loss of three predictions."""
    bins = torch.arange(8)
    distances = torch.linspace(-0.5, 7.5, 401, dtype=torch.double)
    flat = torch.zeros(401, 8, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(distribution_focal_loss(flat, distances, "sum"), flat)
    shares = flat.softmax(1).detach() - gradient
    asked = [Curve(f"bin {i}", distances.numpy(), shares[:, i].numpy()) for i in (0, 3, 4)]
    predicted = []
    for name, sharpness in (("flat", 0.0), ("broad around 3.3", 0.3), ("narrow around 3.3", 1.5)):
        logits = (-sharpness * (bins - 3.3).square()).double().expand(401, 8)
        loss = distribution_focal_loss(logits, distances)
        predicted.append(Curve(name, distances.numpy(), loss.numpy()))
    x = "target distance in bins"
    return (
        Panel("shares asked of the bins", x, "probability", tuple(asked)),
        Panel("loss of three predictions", x, "loss", tuple(predicted)),
    )


def main() -> None:
    """Draws them all; 128 colours are enough for lines, and a fifth of the bytes."""
    drawn = figures(CurvesConfig())
    betas = [f"quality_focal,beta={beta}" for beta in (0, 0.5, 1, 2, 4)]
    for name, panels in {
        "bce": label_panels(["bce", "bce,alpha=0.25", "bce,alpha=0.75"]),
        "focal": (drawn["loss"][0], drawn["gradient"][1]),
        "focal_weight": drawn["weight"],
        "focal_alpha": drawn["alpha"],
        "soft_labels": drawn["soft_targets"],
        "minimisers": drawn["minimisers"],
        "quality_focal": (soft_panel(betas, 0.5), soft_panel(betas, 0.9)),
        "varifocal": varifocal(),
        "dfl": dfl(),
        "iou": drawn["boxes"],
    }.items():
        path = FOLDER / f"loss_{name}"
        save(loss_curves(panels), path, ["png"])
        file = path.with_suffix(".png")
        Image.open(file).convert("RGB").quantize(128).save(file, optimize=True)


if __name__ == "__main__":
    main()
