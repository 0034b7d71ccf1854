"""Importing another MLflow: its tables become an archive, whatever they are kept in; its files are copied."""
