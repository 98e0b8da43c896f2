"""Models as evaluation asks them."""
