"""Attacks on what was approved and on its evidence, by people who may log and register, or even approve.

The server is the deployed one, its own process, on PostgreSQL; S3 and IAM are an emulated account's that
enforces the deployed policies. The only one who gets further is the account's root, past the server: that
cannot be prevented, and must show.
"""
