"""The function behind what an account has once; the template carries it inline."""
