"""Swap the losses of Ultralytics' detectors, YOLOv8 to YOLO26.

Ultralytics is under AGPL-3.0. Nothing of it is here, and this package does not depend on it: what is called
is the one that the user has installed.
"""

from typing import Any

from detloss.integrations._losses import Called, Given, box_loss, check_competes, classification_loss
from detloss.integrations._swap import Swap, check_free, check_version, swapped
from detloss.integrations._ultralytics_criterion import Boxes, Classes, check_soft

TESTED = ("8.4.95", "8.5")
"""The least version, and the first that is not known."""


def swap_losses(
    model: Any,
    classification: Given | None = None,
    box: Given | None = None,
    *,
    force: bool = False,
    impl: str = "eager",
) -> Swap:
    """Let an Ultralytics detector train with other losses; both heads of those that need no NMS.

    Of a `YOLO`, whose training makes a model of its own, the losses of that model and of its average are
    swapped when its training starts, also when it is resumed, and in each process of several. Of a
    `DetectionModel` they are swapped at once. The assigner, the normaliser (the sum of the labels), the gains
    and class weights of the settings and the distribution loss stay. A checkpoint holds nothing of this.

    Its labels are soft. A loss whose minimum is not at the label is refused: the scores would not learn it.

    Args:
        model: a `YOLO` or a `DetectionModel`.
        classification: a name, function or Module; None leaves the criterion's. Called with soft labels.
        box: in place of CIoU. Boxes are in cells of their level, and weigh by their label.
        force: take a classification loss whose minimum is elsewhere.
        impl: how losses of this package run; "auto" compiles for seconds in the first step.

    Returns:
        The Swap: `restore()`, or a context manager.

    Raises:
        ValueError: another model, one that is swapped already, a loss that does not fit.
        RuntimeError: a version of ultralytics that was not tested.
    """
    check_version("ultralytics", *TESTED)
    from ultralytics.engine.model import Model
    from ultralytics.nn.tasks import DetectionModel

    check_free(model)
    at_start = OnPretrainRoutineEnd(classification, box, force, impl)
    if getattr(type(model), "init_criterion", None) is DetectionModel.init_criterion:
        return at_start.swap(model)
    if not isinstance(model, Model) or model.task != "detect":
        raise ValueError(
            f"model is {type(model).__name__}; it may be a YOLO or a DetectionModel that detects"
        )
    swap = Swap(at_start.losses(classes=1 if isinstance(classification, str) else None)[1])
    swap.add(model.callbacks["on_pretrain_routine_end"], at_start)
    swap.mark(model)
    return swap


class OnPretrainRoutineEnd:
    """The callback: `yolo.add_callback("on_pretrain_routine_end", OnPretrainRoutineEnd("quality_focal"))`.

    Its arguments are those of `swap_losses`. It is pickled with what was given, as training in several
    processes needs.
    """

    def __init__(
        self,
        classification: Given | None = None,
        box: Given | None = None,
        force: bool = False,
        impl: str = "eager",
    ) -> None:
        self.classification, self.box, self.force, self.impl = classification, box, force, impl

    def __call__(self, trainer: Any) -> None:
        """Swap the losses of the trainer's model, and of the average that is validated."""
        for model in (trainer.model, getattr(trainer.ema, "ema", None)):
            model = getattr(model, "module", model)
            if model is not None and swapped(model) is None:
                self.swap(model)

    def losses(self, classes: int | None) -> tuple[tuple[Called | None, Called | None], dict[str, str]]:
        """The losses, and their names; checked on soft labels of so many classes, None: not yet."""
        losses = classification_loss(self.classification, self.impl), box_loss(self.box, self.impl)
        check_competes(losses[0], False, "it")
        if losses[0] is not None and classes is not None and not self.force:
            check_soft(losses[0], classes)
        return losses, {
            n: loss.name for n, loss in zip(("classification", "box"), losses) if loss is not None
        }

    def swap(self, model: Any) -> Swap:
        """Put them into the criterion of a `DetectionModel`, which is made if it is not there yet."""
        check_version("ultralytics", *TESTED)
        from ultralytics.utils.loss import E2EDetectLoss, E2ELoss, v8DetectionLoss

        model = getattr(model, "_orig_mod", model)
        criterion = getattr(model, "criterion", None) or model.init_criterion()
        several = isinstance(criterion, E2ELoss | E2EDetectLoss)
        parts = [criterion.one2many, criterion.one2one] if several else [criterion]
        for part in parts:
            if type(part) is not v8DetectionLoss:
                raise ValueError(
                    f"the criterion is {type(part).__name__}; it may be v8DetectionLoss, of detection"
                )
        (classification, box), names = self.losses(parts[0].nc)
        swap = Swap(names)
        swap.put(model, "criterion", criterion)
        for part in parts:
            if classification is not None:
                swap.put(
                    part, "bce", Classes(classification, getattr(part, "class_weights", None) is not None)
                )
            if box is not None:
                swap.put(part, "bbox_loss", Boxes(part.bbox_loss, box))
        swap.mark(criterion)
        return swap
