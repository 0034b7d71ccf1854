"""Proof after a deployment: one real client uses MLflow on AWS as its users do, step by step.

Run it with `python -m client_smoke --tracking-uri https://mlflow.example.com`; docs/smoke.md says more.
"""
