"""``camlucida audit``: one file per audit."""
