"""What is disposable: image, tasks, migration and load balancer. Deployed again, no run is lost."""
