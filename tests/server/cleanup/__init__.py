"""Cleaning up: what goes, what stays, and that nothing else changes."""
