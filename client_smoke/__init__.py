"""Proof after a deployment: one real client keeps every promise that MLflow on AWS makes to its users.

Run it with `python -m client_smoke --tracking-uri https://mlflow.example.com`; docs/smoke.md says more.
"""
