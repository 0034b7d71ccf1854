"""The code of the function behind the migration's custom resource."""
