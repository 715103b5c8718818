"""`detloss compare` with an Ultralytics YOLO that trains as its own `train` does.

pip install ultralytics  # AGPL-3.0: a choice of yours, detloss does not bring it
detloss compare --trainer examples/ultralytics_trainer.py:train --data BCCD --losses bce quality_focal
"""

import shutil

from ultralytics import YOLO

from detloss.integrations.ultralytics import swap_losses
from detloss.lab.data import save
from detloss.lab.training.trainer import Run

MODEL = "yolo11n.yaml"  # from random weights; yolo11n.pt has seen COCO


def train(run: Run) -> list[dict]:
    """One training: the epochs that make run.steps steps, then what is found on the validation images."""
    data = run.folder / "yolo"
    if not data.exists():  # a run that was interrupted has it
        splits = {"train": run.training, "val": run.validation}
        save({name: split.without_ignored() for name, split in splits.items()}, data, "yolo")
    model = YOLO(MODEL)
    if run.losses:  # else its own
        print(swap_losses(model, **run.losses))
    done = [0]

    def after(trainer) -> None:
        done[0] += 1
        run.progress(done[0])

    model.add_callback("on_train_batch_end", after)
    model.train(
        data=str(data / "data.yaml"),
        epochs=max(1, round(run.steps * run.batch / len(run.training))),
        batch=run.batch,
        imgsz=run.size,
        optimizer="AdamW",
        lr0=run.lr,
        box=run.box_weight,  # beside its cls of 0.5; its own default is 7.5
        seed=run.seed,
        device=run.device,
        project=str(run.folder),
        name="ultralytics",
        exist_ok=True,
        workers=2,
        val=False,  # the laboratory evaluates
        plots=False,
    )
    shutil.rmtree(data)
    results = []
    for image_id in range(1, len(run.validation) + 1):
        # BGR, as Ultralytics takes arrays; by name, as its own labels may be in another order.
        image = run.validation[image_id - 1].image[..., ::-1]
        found = model.predict(
            image, imgsz=run.size, conf=0.001, max_det=100, device=run.device, verbose=False
        )[0]
        boxes = found.boxes.xyxy.tolist()
        for (x1, y1, x2, y2), score, label in zip(boxes, found.boxes.conf.tolist(), found.boxes.cls.tolist()):
            category = run.names.index(found.names[int(label)]) + 1
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
    return results
