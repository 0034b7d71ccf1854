"""MLflow's tracking server as it runs on AWS."""
