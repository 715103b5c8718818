"""What a loss of your own is made of: `elementwise_loss` turns a formula into a loss."""

from detloss._core.elementwise import elementwise_loss

__all__ = ["elementwise_loss"]
