"""Audits: experiments that put attribution methods to the test, and say in plain words what came out."""
