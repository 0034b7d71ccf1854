"""The function behind the federation's custom resource; the template carries it inline."""
