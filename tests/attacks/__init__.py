"""Attacks on identity, each refused by the real server behind the real load balancer, and without it."""
