"""What must work where only torch is installed; run by `make wheel` in an environment of its own."""

import subprocess
import sys
from importlib.metadata import distributions

import torch

import detloss

print("detloss", detloss.__version__, detloss.__file__)
installed = {distribution.name.lower() for distribution in distributions()}
assert not installed & {"numpy", "tyro", "rich", "matplotlib", "pillow", "safetensors"}, installed
logits, labels = torch.randn(1000, 80, requires_grad=True), torch.randint(0, 81, (1000,))
for impl in ("eager", "compile"):
    loss = detloss.sigmoid_focal_loss(logits, labels, reduction="sum", impl=impl)
    (gradient,) = torch.autograd.grad(loss, logits)
    print(impl, loss.item(), gradient.norm().item())
for command in (["detloss"], ["detloss", "doctor", "losses.py:loss"]):
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 2, done
    assert "pip install 'detloss[lab]'" in done.stderr, done.stderr
    print(done.stderr.splitlines()[-1])  # before it torch warns that numpy is missing
