"""A training step of other libraries' detectors: with their losses, the same from here, others.

Command: python benchmarks/integrations.py [--rounds N] [--quick], in the environment of `make clients`. Small
bodies, so that the loss shows; random images. The variants take turns in one process, ratios are of medians.
The table goes to benchmarks/results/integrations.csv, or where --out says. Duration: about ten minutes, some
of it compiling.
"""

import argparse
import copy
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detloss.integrations import rfdetr, torchvision, transformers, ultralytics
from detloss.lab.bench.run import environment
from detloss.lab.cli.terminal import counting, say, show_table
from detloss.lab.runs import write_csv

HERE = Path(__file__).parent
COLUMNS = ("client", "losses", "first_ms", "median_ms", "low_ms", "high_ms", "ratio", "peak_mb")
CLASSES = 80


class Client(NamedTuple):
    """A detector, what it trains with, and how its losses are swapped: for the same ones, and for others."""

    model: nn.Module
    step: Callable[[nn.Module], Tensor]
    swap: Callable[..., object]
    own: str
    same: dict[str, object]
    other: dict[str, object]


def body() -> nn.Module:
    """Two layers: what is measured is the head and its loss."""
    layers = [nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    made = nn.Sequential(*layers)
    made.out_channels = 32
    return made


def boxes(count: int, size: float) -> Tensor:
    """Random boxes, xyxy in pixels."""
    corner = torch.rand(count, 2) * size / 2
    return torch.cat([corner, corner + (0.1 + 0.4 * torch.rand(count, 2)) * size], 1)


def of_torchvision(kind: str, size: int) -> Client:
    """RetinaNet or FCOS on one map of features."""
    from torchvision.models import detection

    sizes = ((24, 32, 48),) if kind == "RetinaNet" else ((8,),)
    anchors = detection.anchor_utils.AnchorGenerator(
        sizes, ((0.5, 1.0, 2.0),) if kind == "RetinaNet" else ((1.0,),)
    )
    model = getattr(detection, kind)(
        body(), CLASSES + 1, min_size=size, max_size=size, anchor_generator=anchors
    )
    images = [torch.rand(3, size, size) for _ in range(2)]
    targets = [{"boxes": boxes(8, size), "labels": torch.randint(1, CLASSES + 1, (8,))} for _ in images]
    own, box = ("focal and L1", "l1") if kind == "RetinaNet" else ("focal and GIoU", "giou")
    return Client(
        model,
        lambda model: sum(model(images, targets).values()),
        torchvision.swap_losses,
        f"torchvision {kind}: {own}",
        {"classification": "focal", "box": box},
        {"classification": "quality_focal", "box": "ciou"},
    )


def of_transformers(size: int) -> Client:
    """RT-DETR with 300 queries and three decoder layers."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    widths = [16, 32, 64, 128]
    backbone = RTDetrResNetConfig(embedding_size=16, hidden_sizes=widths, depths=[1] * 4, layer_type="basic")
    backbone.out_features = ["stage2", "stage3", "stage4"]
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=widths[1:],
        encoder_hidden_dim=64,
        encoder_ffn_dim=128,
        decoder_in_channels=[64] * 3,
        decoder_ffn_dim=128,
        d_model=64,
        decoder_layers=3,
        num_labels=CLASSES,
    )
    images = torch.rand(2, 3, size, size)
    labels = [
        {"class_labels": torch.randint(0, CLASSES, (8,)), "boxes": torch.rand(8, 4) * 0.3 + 0.3}
        for _ in images
    ]
    return Client(
        RTDetrForObjectDetection(config),
        lambda model: model(pixel_values=images, labels=labels).loss,
        transformers.swap_losses,
        "transformers RT-DETR: varifocal, L1 and GIoU",
        {"classification": "varifocal,detach_weight=true", "box": "giou", "l1": "l1"},
        {"classification": "mal", "box": "ciou"},
    )


def of_ultralytics(size: int) -> Client:
    """YOLO11n from its yaml."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel("yolo11n.yaml", nc=CLASSES, verbose=False)
    model.args = get_cfg()
    count = 16
    batch = {
        "img": torch.rand(2, 3, size, size),
        "batch_idx": torch.arange(count) // (count // 2),
        "cls": torch.randint(0, CLASSES, (count, 1)).float(),
        "bboxes": torch.rand(count, 4) * 0.3 + 0.3,
    }
    return Client(
        model,
        lambda model: model.loss(batch)[0].sum(),
        ultralytics.swap_losses,
        "Ultralytics YOLO11n: BCE and CIoU",
        {"classification": "bce", "box": "ciou"},
        {"classification": "quality_focal", "box": "giou"},
    )


class Queries(nn.Module):
    """What RF-DETR's criterion sees of its detector: logits and boxes of 13 groups of 300 queries."""

    def __init__(self) -> None:
        from rfdetr.models.criterion import SetCriterion
        from rfdetr.models.matcher import HungarianMatcher

        super().__init__()
        self.logits = nn.Parameter(torch.randn(2, 3900, CLASSES) - 4)
        self.boxes = nn.Parameter(torch.randn(2, 3900, 4))
        self.criterion = SetCriterion(
            CLASSES,
            HungarianMatcher(cost_class=2, cost_bbox=5, cost_giou=2),
            {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0},
            0.25,
            ["labels", "boxes", "cardinality"],
            group_detr=13,
            ia_bce_loss=True,
        )

    def forward(self, targets: list[dict[str, Tensor]]) -> Tensor:
        """The weighted sum of the terms."""
        found = self.criterion({"pred_logits": self.logits, "pred_boxes": self.boxes.sigmoid()}, targets)
        return sum(found[name] * weight for name, weight in self.criterion.weight_dict.items())


def of_rfdetr() -> Client:
    """The criterion alone: RF-DETR needs weights from the network."""
    targets = [
        {"labels": torch.randint(0, CLASSES, (8,)), "boxes": torch.rand(8, 4) * 0.3 + 0.3} for _ in range(2)
    ]
    return Client(
        Queries(),
        lambda model: model(targets),
        rfdetr.swap_losses,
        "RF-DETR's criterion: IA-BCE, L1 and GIoU",
        {"classification": "ia_bce", "box": "giou", "l1": "l1"},
        {"classification": "mal", "box": "ciou"},
    )


def clients(size: int) -> list[Callable[[], Client]]:
    """Each of the clients, made when its turn comes."""
    return [
        lambda: of_torchvision("RetinaNet", size),
        lambda: of_torchvision("FCOS", size),
        lambda: of_transformers(size),
        lambda: of_ultralytics(size),
        of_rfdetr,
    ]


def measure(client: Client, rounds: int, progress: Callable[[int, int], None]) -> list[dict[str, object]]:
    """A row for the own losses, the same from here, eagerly and compiled, and others."""
    models = {client.own: client.model.train()}
    same, other = (", ".join(map(str, given.values())) for given in (client.same, client.other))
    for name, given in (
        (f"the same from here: {same}", client.same),
        (f'the same with impl="auto": {same}', {**client.same, "impl": "auto"}),
        (f"others from here: {other}", client.other),
    ):
        models[name] = copy.deepcopy(client.model).train()
        client.swap(models[name], **given)
    times: dict[str, list[float]] = {name: [] for name in models}
    peaks = dict.fromkeys(models, 0.0)
    order = list(models)
    for done in range(rounds + 1):  # the first of each apart
        for name in order[done % 4 :] + order[: done % 4]:
            torch.manual_seed(done)
            model = models[name]
            model.zero_grad(set_to_none=True)
            before = resident("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")
            began = time.perf_counter()
            client.step(model).backward()
            times[name].append(1000 * (time.perf_counter() - began))
            if done:
                peaks[name] = max(peaks[name], resident("VmHWM") - before)
        progress(done + 1, rounds + 1)
    base = median(times[client.own][1:])
    rows = []
    for name, (first, *later) in times.items():
        low, middle, high = quantiles(later, n=4)
        figures = {"first_ms": first, "median_ms": middle, "low_ms": low, "high_ms": high}
        rows.append(
            {"client": client.own.partition(":")[0], "losses": name}
            | {column: round(value, 1) for column, value in figures.items()}
            | {"ratio": round(middle / base, 3), "peak_mb": round(peaks[name])}
        )
    return rows


def resident(field: str) -> float:
    """Memory of this process in MB, by a field of Linux's status file."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1e3


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40, help="steps of each variant, after a first one")
    parser.add_argument("--size", type=int, default=320, help="width and height of the images, in pixels")
    parser.add_argument("--quick", action="store_true", help="a try of everything; its numbers mean nothing")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "integrations.csv")
    args = parser.parse_args()
    rounds, size = (2, 128) if args.quick else (args.rounds, args.size)
    rows = []
    for make in clients(size):
        torch.manual_seed(0)
        client = make()
        with counting(client.own.partition(":")[0]) as progress:
            rows += measure(client, rounds, progress)
    versions = environment(torch.device("cpu"))
    write_csv(args.out, (*COLUMNS, *versions), [row | versions for row in rows])
    show_table(
        ["losses", "first step, ms", "later", "quartiles", "ratio", "peak, MB"],
        [
            [
                str(row["losses"]),
                f"{row['first_ms']:.0f}",
                f"{row['median_ms']:.1f}",
                f"{row['low_ms']:.1f} to {row['high_ms']:.1f}",
                f"{row['ratio']:.2f}",
                f"{row['peak_mb']}",
            ]
            for row in rows
        ],
    )
    say(f"table: {args.out}")


if __name__ == "__main__":
    main()
