"""The way to the database: IAM tokens as passwords, verified TLS, roles, a pool, and a check."""
