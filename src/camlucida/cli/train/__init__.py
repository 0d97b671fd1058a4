"""``camlucida train``: one file per kind of training."""
