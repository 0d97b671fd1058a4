"""``camlucida reproduce``: one file per group of published tables."""
