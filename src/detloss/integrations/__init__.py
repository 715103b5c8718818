"""The losses of a detector that somebody else wrote, swapped in one line.

One module per client (`detloss.integrations.torchvision`, `transformers`, `ultralytics`, `rfdetr`), each with

    swap_losses(model, classification=..., box=..., **settings) -> Swap

which imports its client only when it is called. A loss is a function called as this package's are, a Module,
or a name (`"focal,gamma=1.5"`). What a `Swap` can do: `restore()`, `with`, `repr`.
"""

from detloss.integrations._swap import Swap, swapped

__all__ = ["Swap", "swapped"]
