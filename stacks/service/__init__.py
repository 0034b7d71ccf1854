"""What is disposable: image, tasks, migration and load balancer; destroyed and redeployed without losing a run."""
