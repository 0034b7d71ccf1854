"""What is deployed: the CDK constructs, and the schema of their configuration."""
