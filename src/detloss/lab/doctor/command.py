"""`detloss doctor`: what anybody's loss is, and what is wrong with it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from detloss.lab.cli.arguments import FromFile, Out, Trust, Usage, given, read, refuse_another
from detloss.lab.cli.terminal import console, progress_bar, say
from detloss.lab.doctor import Diagnosis, Finding, diagnose
from detloss.lab.doctor.diagnose import Kind, check
from detloss.lab.engines import JobFailed
from detloss.lab.records import to_dict
from detloss.lab.runs import new_folder, versions, write_csv, write_json

STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
COLUMNS = ("line", "x", "value", "gradient", "known_value", "known_gradient")


@dataclass(frozen=True)
class DoctorConfig:
    """What is examined."""

    target: tyro.conf.Positional[str] = ""
    """The loss: PATH.py:NAME or module:NAME; a function, a class, or an object that can be called."""
    kind: Kind = "auto"
    """The kind of loss: auto finds out by trial calls."""
    like: str | None = None
    """A peer: says where its convention differs from that one's. May be
    detloss torchvision mmdet ultralytics fvcore optax monai kornia smp keras deim paddle."""
    time_limit: float = 60.0
    """Seconds after which it is stopped."""
    call: str | None = None
    """How it is called, where the doctor cannot tell: 'lambda loss, logits, labels: loss(logits, labels, 1)'.
    This text is run as Python, like the file of the loss."""

    def __post_init__(self) -> None:
        check(self.kind, self.like, self.time_limit, self.call)


@dataclass(frozen=True)
class Arguments:
    """Examine anybody's loss: which known one it equals, what is wrong with it, what to do.

    The file of the loss is run, in a process of its own. That is no sandbox: name only code that you would
    run yourself. So it is with --call, and with the file that a configuration of --config names.
    """

    settings: Annotated[DoctorConfig, tyro.conf.arg(name="")] = field(default_factory=DoctorConfig)
    json: bool = False
    """One JSON object and nothing else on standard output; the run folder is named on standard error."""
    out: Out = None
    config_file: FromFile = None
    trust: Trust = False


def parse(arguments: Sequence[str]) -> Arguments:
    """`detloss doctor`: defaults, changed by --config, by the other arguments."""
    return read("doctor", Arguments, arguments, Arguments(given(DoctorConfig, arguments)))


def run(arguments: Arguments) -> Path:
    """Runs `detloss doctor`; its folder is returned, or status 1 is where an error was found."""
    from detloss.lab.doctor.figures import loss_beside_known
    from detloss.lab.figures import save

    config = arguments.settings
    if not config.target:
        raise Usage("which loss? write detloss doctor PATH.py:NAME or module:NAME")
    refuse_another(arguments.out, config)
    diagnosis = _examine(config, quiet=arguments.json)
    out = new_folder("doctor", arguments.out)
    write_json(out / "config.json", to_dict(config))
    write_json(out / "versions.json", versions("cpu"))
    more = {name: getattr(diagnosis, name) for name in ("subject", "notes", "checked")}
    write_json(out / "report.json", diagnosis.to_dict() | more)
    if diagnosis.curve is not None:
        write_csv(out / "curve.csv", COLUMNS, _rows(diagnosis.curve))
        save(loss_beside_known(diagnosis.curve, diagnosis.subject), out / "curve")
    if arguments.json:
        print(json.dumps(diagnosis.to_dict(), ensure_ascii=False))
    else:
        show(diagnosis)
    if arguments.json or diagnosis.failed:
        print(out, file=sys.stderr if arguments.json else sys.stdout)
        raise SystemExit(int(diagnosis.failed))
    return out


def _examine(config: DoctorConfig, quiet: bool) -> Diagnosis:
    bar = progress_bar()
    bar.disable |= quiet
    task = bar.add_task("examining", total=None, note="starting")

    def tell(done: int, total: int, stage: str) -> None:
        bar.update(task, completed=done, total=total, note=stage)

    try:
        with bar:
            return diagnose(**asdict(config), progress=tell)
    except RuntimeError as error:
        raise JobFailed(str(error)) from None


def _rows(curve: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"line": line["label"], "x": x, **{name: (line[name] or [None] * (i + 1))[i] for name in COLUMNS[2:]}}
        for line in curve["lines"]
        for i, x in enumerate(curve["x"])
    ]


def show(diagnosis: Diagnosis) -> None:
    """Prints a diagnosis for a person: what it is, what is wrong, what is right."""
    examined = diagnosis.matches is not None or diagnosis.convention
    known = f"equals {diagnosis.matches or 'no known loss'}"
    if (smoothing := diagnosis.convention.get("label_smoothing")) is not None:
        known += f" with label smoothing {smoothing:g}"
    unknown = next((finding for finding in diagnosis.findings if finding.code == "not-examined"), None)
    if unknown is not None:
        known = f"was {unknown.message}"
    elif not examined:
        known = "could not be examined"
    say(f"{diagnosis.subject} {known}")
    if unknown is not None:
        say(_details(unknown))
    for key, value in _told(diagnosis.convention).items():
        say(f"  {key.replace('_', ' ')}: {_text(value)}")
    for note in diagnosis.notes:
        say(f"  {note}")
    for level, style in STYLES.items():
        found = [one for one in diagnosis.findings if one.level == level and one != unknown]
        if found:
            console.print(f"\n{len(found)} {level}{'s' if len(found) > 1 else ''}", style=style)
        for finding in found:
            console.print(finding.code, style=style, end=": ")
            say(f"{finding.message}\n{_details(finding)}")
    if diagnosis.checked:
        say(f"\nfound right: {', '.join(diagnosis.checked)}")


def _details(finding: Finding) -> str:
    remedy = finding.remedy.replace("call='", "--call '")
    return f"    seen: {finding.evidence}\n    do:   {remedy}"


def _told(convention: dict[str, Any]) -> dict[str, Any]:
    """A convention for a person: alpha in a line, and without what is empty."""
    told = {
        key: value
        for key, value in convention.items()
        if value != {} and key not in ("alpha_known", "alpha_set")
    }
    positives, negatives = (_text(told.pop(f"weight_of_{side}", None)) for side in ("positives", "negatives"))
    if told.pop("alpha_on", "off") != "off":
        weights = f"positives weigh {positives}, negatives {negatives}"
        told["alpha"] = f"{_text(told['alpha'])} on {convention['alpha_on']}: {weights}"
    elif "alpha" in told and told["alpha"] is None:
        told["alpha"] = "off"
    if "float32_error" in told:
        told["float32_error"] = f"{_text(told['float32_error'])}, relative to float64"
    if told.get("memory") is not None:
        told["memory"] = f"autograd keeps {told['memory']:g} times the predictions"
    return told


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')} {inner}" for key, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
