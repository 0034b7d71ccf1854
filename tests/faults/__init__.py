"""Faults while clients log: what was acknowledged is stored, and stored once."""
