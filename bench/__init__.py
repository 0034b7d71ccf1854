"""How much load a tracking server takes, and what it costs, beside stock MLflow and bare SQL."""
