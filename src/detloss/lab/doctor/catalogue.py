"""Every finding there is: its code, its level, what it says and what to do. The probes hold no sentences."""

from collections.abc import Iterator
from typing import NamedTuple

from detloss.lab.doctor.findings import Finding, Level

Found = Iterator[Finding]


class Entry(NamedTuple):
    """A kind of finding; `{words}` are filled in by the probe that makes it."""

    code: str
    level: Level
    message: str
    remedy: str


_EPS = "add an eps (1e-7) to every denominator"
_LOGITS = "work on logits: logsigmoid or log_softmax instead of the logarithm of a probability"
_DEVICE = "make tensors with device=inputs.device, or register_buffer in a Module"
_CALL = "say how it is called: call='lambda loss, logits, labels: {call}'"

_UNLIKE: dict[str, tuple[str, Level]] = {
    "takes": ("probabilities-not-logits", "warning"),
    "alpha_on": ("alpha-inverted", "warning"),
    "soft_targets": ("soft-target-minimiser", "warning"),
    "reduction": ("reduction", "note"),
    "gradient": ("wrong-gradient", "warning"),
    "form": ("similarity-not-loss", "note"),
    "eps": ("no-eps", "note"),
}

CATALOGUE: dict[str, Entry] = {
    # the file and the call
    "not python": Entry("crashes", "error", "the file is not valid Python: {what}",
        "correct the line; code copied from a page often lost its indentation"),
    "import fails": Entry("crashes", "error", "importing the file fails: {what}",
        'correct the line; what a script does belongs under `if __name__ == "__main__":`'),
    "import lacks": Entry("crashes", "error", "importing the file fails: {what}",
        "install {name}, or move the loss to a file that does not need it"),
    "undefined": Entry("undefined-name", "error", "`{name}` is not defined anywhere",
        "define `{name}`, or correct its name"),
    "undefined, usual": Entry("undefined-name", "error", "`{name}` is not defined anywhere", "add `{line}`"),
    "wrong super": Entry("undefined-name", "error", "`{name}` is not defined: the class is called `{owner}`",
        "write super().__init__()"),
    "unbound": Entry("undefined-name", "error", "a name is used before it has a value",
        "give it a value on every path, or correct the name"),
    "unbound at": Entry("undefined-name", "warning", "with {hyper} a name is used before it has a value",
        "give it a value on that path too, or raise a ValueError there"),
    "thrown away": Entry("dead-expression", "error", "the value of `{text}` is thrown away",
        "assign it or return it"),
    "compared for nothing": Entry("dead-expression", "warning", "the value of `{text}` is thrown away",
        "delete the line, or use its value"),
    "never used": Entry("dead-expression", "warning", "`{name}` is computed and never used",
        "use `{name}`, or delete the line"),
    "no return": Entry("no-return", "error", "`{name}` returns None", "return the loss at its end"),
    "no return at": Entry("no-return", "warning", "with {hyper} it returns None",
        "return a value there too, or raise a ValueError that names the argument"),
    "needs an argument": Entry("not-examined", "note",
        "not examined, because the value of `{name}` cannot be guessed", _CALL),
    "cannot be called": Entry("not-examined", "note",
        "not examined, because none of {count} forms of call works: {what}", _CALL),
    "call fails": Entry("not-examined", "note",
        "not examined, because the call that you wrote fails: {what}",
        "correct it; it gets logits (N, C) with targets of that shape, then class indices (N,), then boxes"),
    "fails": Entry("crashes", "error", "it raises in every form of call: {what}",
        "run it on a few numbers and correct the line"),
    "makes a loss": Entry("not-examined", "note",
        "not examined, because it returns a function: it makes a loss",
        "say how it is called: call='lambda make, logits, labels: make()(logits, labels)'"),
    "one number of classes": Entry("not-examined", "note",
        "not examined, because it works for {count} classes only: {what}",
        "set what fixes their number, such as weights per class, to None or a number in your call"),
    "few numbers only": Entry("crashes", "warning",
        "it runs on the first few numbers, but not on other batches: little could be examined",
        "a loss takes any number of rows; name a version of it that does"),
    "stops the doctor": Entry("crashes", "error", "it stopped the examination: {what}",
        "run it on a few numbers and correct the line"),
    "process ends": Entry("crashes", "error", "its process ended {how}, at this stage: {stage}",
        "raise an exception instead"),
    "memory limit": Entry("crashes", "error",
        "it needed more than {how} GiB of memory, at this stage: {stage}",
        "look for shapes that broadcast, or for a list that grows"),
    "hangs": Entry("hangs", "error", "it did not end within {how} s, at this stage: {stage}",
        "look for a loop that never ends"),
    "import hangs": Entry("hangs", "error", "importing the file did not end within {how} s",
        'what a script does, such as training, belongs under `if __name__ == "__main__":`'),
    "one column only": Entry("crashes", "warning", "it works for predictions of shape (N,) only: {what}",
        "keep the shape of the predictions: no .view(-1) on one of two factors"),
    "not a tensor": Entry("not-differentiable", "error", "it returns {what}, not a tensor",
        "return the tensor itself; no .item(), no float(...)"),
    "numpy": Entry("not-differentiable", "error", "it calls numpy on a tensor that needs a gradient",
        "compute the loss with torch operations: no gradient comes through numpy"),
    # what it takes
    "probabilities": Entry("probabilities-not-logits", "warning", "it takes {what}, not logits",
        "pass {remedy}; or compute the loss from logits, which does not saturate"),
    "no background": Entry("breaks-empty", "warning", "it has no background: a row without a class raises",
        "let class index C be the background: one_hot(labels, C + 1)[:, :C]"),
    "column spread": Entry("silent-broadcast", "error",
        "predictions and targets of shape (N, 1) are broadcast against each other to (N, N)",
        "give all factors the shape of the predictions: targets.view_as(inputs)"),
    "eps needed": Entry("no-eps", "error", "`{name}` is missing, and without it the value is not finite",
        "add an argument {name}=1e-7"),
    "last bin raises": Entry("crashes", "warning", "a distance in the last bin raises: {what}",
        "clamp without changing the argument: targets.clamp(0, n - 0.01), or weigh bin n alone there"),
    "last bin": Entry("not-finite-value", "warning", "the loss of a distance in the last bin is not finite",
        "clamp without changing the argument: targets.clamp(0, n - 0.01), or weigh bin n alone there"),
    # values
    "alpha on negatives": Entry("alpha-inverted", "error",
        "alpha weighs the negatives and 1 - alpha the positives: the other way round from the paper",
        "weigh with alpha t + (1 - alpha)(1 - t); for a gathered pair the order is [1 - alpha, alpha]"),
    "alpha on both": Entry("alpha-on-both", "warning",
        "alpha weighs positives and negatives alike: it balances nothing and only scales the loss",
        "weigh with alpha t + (1 - alpha)(1 - t); several classes take a tensor, one alpha per class"),
    "weight inside": Entry("weight-in-p_t", "warning",
        "the class weight is inside p_t = exp(-CE): p_t is no probability then, and the focus shifts with it",
        "take p_t of a cross entropy without weights, and multiply by the weight of the class afterwards"),
    "equal to one": Entry("soft-target-minimiser", "warning",
        "a label just below 1 costs, or weighs, like a negative or nothing: labels are compared with == 1",
        "weigh by the label itself, alpha t + (1 - alpha)(1 - t), or compare with > 0.5"),
    "similarity": Entry("similarity-not-loss", "error",
        "a right prediction has a larger value than a wrong one: minimising it drives predictions away",
        "{remedy}"),
    "value not finite": Entry("not-finite-value", "error", "the loss is {what} from {where} on", _LOGITS),
    "log of 0": Entry("no-eps", "warning", "the logarithm of a probability that has become 0 or 1",
        "take logits (logsigmoid, log_softmax); or clamp the probability to [eps, 1 - eps]"),
    "box not finite": Entry("not-finite-value", "error", "the loss is not finite for {what}", "{remedy}"),
    "box without eps": Entry("no-eps", "warning", "{what}", "{remedy}"),
    "soft minimum": Entry("soft-target-minimiser", "warning",
        "on soft labels the loss is not smallest where the probability is the label",
        "for soft labels (an IoU, label smoothing) use quality focal loss or varifocal loss"),
    "soft minimum by design": Entry("soft-target-minimiser", "note",
        "on soft labels the loss is not smallest where the probability is the label", "by design: {remedy}"),
    # gradients
    "raises with gradient": Entry("not-differentiable", "error",
        "it runs on tensors without gradient, and raises on those with one",
        "compute the loss with torch operations only: no .item(), .detach(), .data, numpy or no_grad"),
    "no gradient": Entry("not-differentiable", "error", "no gradient reaches the predictions",
        "compute the loss with torch operations only: no .item(), .detach(), .data, numpy or no_grad"),
    "only together": Entry("reduction", "warning",
        "the loss of a row alone is constant: weights from the batch, or a softmax over its rows?",
        "softmax and sums over classes need dim=1; how the loss treats one row was not examined"),
    "weight detached": Entry("wrong-gradient", "warning",
        "the weight on the cross entropy carries no gradient",
        "on purpose or not? drop .detach() or no_grad to get the gradient of the published formula"),
    "detached": Entry("wrong-gradient", "warning",
        "the gradient is not the derivative of the value: a part of it is left out",
        "on purpose or not? drop .detach(), .data or no_grad to get the whole gradient"),
    "wrong gradient": Entry("wrong-gradient", "error", "the gradient is not the derivative of the value",
        "check the backward of a custom autograd.Function, and what goes through numbers, round or argmax"),
    "through alpha": Entry("wrong-gradient", "note",
        "the gradient of CIoU goes through alpha, the weight of its aspect term, too",
        "compute alpha under torch.no_grad(), as the paper and torchvision do"),
    "gradient not finite": Entry("not-finite-gradient", "error",
        "the gradient is not finite from {where} on",
        "work on logits (logsigmoid, log_softmax); torch.where stops no NaN of its other branch"),
    "gradient not finite at": Entry("not-finite-gradient", "warning",
        "with gamma = {gamma} the gradient is not finite from {where} on",
        "the derivative of a power or a root at 0 is infinite: add a tiny number to its base"),
    "box gradient not finite": Entry("not-finite-gradient", "error", "the gradient is not finite for {what}",
        "give divisions and roots an eps, clamp heights before w/h; masking afterwards is too late"),
    # direction
    "pushed away": Entry("wrong-gradient", "error",
        "wrong predictions are pushed further away: the loss falls as they get worse",
        "its weight must not fall: (1 - p_t)^gamma has p_t = p for target 1, 1 - p for target 0"),
    "pushed away far out": Entry("wrong-gradient", "warning",
        "from some logit on wrong predictions are pushed further away: the loss falls as they get worse",
        "on purpose (against wrong labels) or not? a cross entropy pulls back from everywhere"),
    "learns nothing": Entry("wrong-gradient", "error",
        "predictions for {what} get no gradient: they learn nothing",
        "positives and negatives both need a term: -t log p - (1 - t) log(1 - p)"),
    "hopeless": Entry("wrong-gradient", "warning",
        "hopelessly wrong predictions get no gradient: they never learn",
        "work on logits (logsigmoid, log_softmax), not on clamped probabilities; put a cross entropy beside "
        "what compares probabilities themselves (Dice, squares)"),
    "squashed twice": Entry("wrong-gradient", "error",
        "the {what} is applied twice: before a loss that applies its own. Wrong predictions get next to no "
        "gradient, right ones keep a loss", "pass the logits to the loss as they are, without {what}"),
    "pushed off": Entry("wrong-gradient", "error", "a prediction that equals its target is pushed off it",
        "are both boxes taken in the same format (corners, or centre and size)?"),
    "falls on the way": Entry("wrong-gradient", "error",
        "a prediction that {what} its target gets a smaller loss on the way",
        "clamp widths and heights of the overlap at 0, and check each area, each corner and each sign"),
    # the batch
    "mean over all": Entry("reduction", "note",
        "it divides by all elements, background included: the loss of the few positives shrinks with the "
        "number of locations and classes",
        "sum, then divide by the number of positives (at least 1), as detectors do"),
    "tied rows": Entry("reduction", "warning",
        "it returns a value for each element, which depends on the other rows",
        "a maximum, a mean or a softmax over the batch? take it along the classes (dim=1) of a row"),
    "weighed too late": Entry("reduction", "error",
        "the weight is put on the mean of the cross entropy, not on each element: easy and hard "
        "ones weigh the same",
        "cross entropy with reduction='none', then the weight, then the mean"),
    "reduction ignored": Entry("reduction", "warning", "the argument reduction is not followed",
        "reduce as the argument says, and raise for a name that is not known"),
    "breaks empty": Entry("breaks-empty", "warning", "it breaks for {what}",
        "divide by max(number, 1); a mean over nothing is 0 / 0: sum, then divide"),
    "empty without gradient": Entry("breaks-empty", "warning",
        "without rows its result has no gradient: backward raises",
        "return inputs.sum() * 0 for an empty batch"),
    "ignore raises": Entry("crashes", "error", "it has ignore_index = {index}, and fails on such a target",
        "select first: keep = target != ignore_index, then logits[keep], target[keep]"),
    "not ignored": Entry("wrong-gradient", "error",
        "it has ignore_index = {index}, and does not ignore such a target",
        "select first: keep = target != ignore_index, then logits[keep], target[keep]"),
    "not contiguous": Entry("breaks-noncontiguous", "warning", "on tensors that are not contiguous it {what}",
        "use .reshape instead of .view"),
    "half": Entry("breaks-half", "warning", "it does not work in {what}",
        "do the arithmetic in float32: inputs.float() first, and autocast off for the loss"),
    "spread": Entry("silent-broadcast", "warning",
        "targets of a shape that does not fit are accepted and spread",
        "raise where predictions.shape != targets.shape"),
    "spread inside": Entry("silent-broadcast", "error",
        "for predictions and targets of shape {shape} a factor of shape ({count},) is spread over them",
        "keep the shape: index with targets.long() instead of targets.view(-1)"),
    "every with every": Entry("silent-broadcast", "error",
        "it takes every prediction with every target: N × N values, of which N are meant",
        "keep one shape: squeeze or view both, or neither; of boxes take the pairs alone"),
    # what it does besides
    "changes argument": Entry("mutates-input", "error", "it changes its argument {name} in place",
        "write x = x.clamp(...) instead of x.clamp_(...), a * b instead of a *= b"),
    "changes criterion": Entry("mutates-input", "warning",
        "building it sets the reduction of the {name} given to it to {what!r}: other code that uses it gets "
        "another loss", "call F.binary_cross_entropy_with_logits(..., reduction='none') instead"),
    "changes settings": Entry("mutates-input", "error", "it changes torch's settings for all that follows",
        "use a with block, which restores them"),
    "gradients on": Entry("mutates-input", "warning",
        "it switches gradients on, also for a caller that had them off",
        "use `with torch.no_grad():` around the lines, not torch.set_grad_enabled(True) after them"),
    "random": Entry("mutates-input", "warning",
        "it draws random numbers: the same call has another value each time",
        "draw outside of the loss, so that the same prediction costs the same"),
    "state": Entry("mutates-input", "warning",
        "it keeps a state between calls: the same call has another value the second time",
        "a loss is a function of its arguments; pass a schedule's step, or a running mean, as one"),
    "asks for a gpu": Entry("device-hardcoded", "error",
        "it asks for a GPU, whatever device its inputs are on", _DEVICE),
    "stays on cpu": Entry("device-hardcoded", "warning",
        "a tensor of its own stays on the CPU when its arguments are on another device", _DEVICE),
    "dtype written in": Entry("dtype-hardcoded", "warning", "a dtype is written into it",
        "make tensors with inputs.new_tensor, zeros_like or dtype=inputs.dtype"),
    "labels cut": Entry("dtype-hardcoded", "warning",
        "the targets are cast to integers: a soft label between 0 and 1 becomes 0",
        "keep the targets floating: alpha * t + (1 - alpha) * (1 - t)"),
    "cast": Entry("dtype-hardcoded", "note", "the predictions are cast to {what}, whatever they come in",
        "cast half precision only, or use .to(inputs.dtype)"),
    "loop": Entry("python-loop", "warning", "a Python loop over {what}: its time grows with their number",
        "write it with masks or torch.where, on whole tensors"),
    "memory kept": Entry("memory", "warning",
        "autograd keeps {kept:.1f} times the predictions for the backward pass",
        "take the pairs alone, not N × N; a fused loss keeps the gradient alone: one time the predictions"),
    # --like
    **{
        f"unlike {key}": Entry(code, level, "{key} is not as in {like}",
            "do not carry hyperparameters over from {like} as they are")
        for key, (code, level) in _UNLIKE.items()
    },
}  # fmt: skip

CODES = tuple(dict.fromkeys(entry.code for entry in CATALOGUE.values()))


def found(kind: str, evidence: str, level: Level | None = None, /, **words: object) -> Finding:
    """The finding of that kind, with what was seen."""
    entry = CATALOGUE[kind]
    message, remedy = entry.message.format(**words), entry.remedy.format(**words)
    return Finding(entry.code, level or entry.level, message, " ".join(evidence.split())[:500], remedy)
