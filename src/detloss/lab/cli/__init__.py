"""What all commands share: arguments, the terminal, the data they open; it knows no command but by name."""
