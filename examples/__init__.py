"""Examples to run against any deployment, to read and to copy."""
