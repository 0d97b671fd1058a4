"""All audits together: which methods are safe on this model, for which question."""
