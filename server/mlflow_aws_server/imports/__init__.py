"""Importing another MLflow: an archive of its tables becomes rows of this deployment, all or none.

`archive` reads what the operator uploaded, `scratch` gives it MLflow's tables at the source's revision and
migrates them, `mapping` decides which ids and names change, `tables` says what is copied and what is not, and
`copying` does it.
"""
