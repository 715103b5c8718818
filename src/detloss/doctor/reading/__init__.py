"""What the text of a loss says, without running it."""
