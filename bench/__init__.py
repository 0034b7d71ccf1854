"""What a tracking server can carry: load and cost, side by side with stock MLflow and with bare SQL."""
