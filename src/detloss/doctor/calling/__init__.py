"""How a loss that anybody wrote is loaded and called."""
