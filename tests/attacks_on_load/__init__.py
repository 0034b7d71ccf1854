"""Attacks on memory and time, by callers who have a role, while somebody else trains."""
