"""What you would miss: network, database, artifacts and keys, under termination protection."""
