"""Stand-ins and helpers that the platform, the tests and the benchmark share."""
