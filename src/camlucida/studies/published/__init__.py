"""Published tables, and ours beside them."""
