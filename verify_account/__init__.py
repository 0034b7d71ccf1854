"""Checks a deployment's resources in its account: needs AWS clients and the service stack's outputs."""
