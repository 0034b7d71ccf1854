"""The load balancer: the deployed listener's rules, TLS, sign-in and token checks before the tasks."""
