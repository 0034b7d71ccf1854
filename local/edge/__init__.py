"""The load balancer in front of the tasks: TLS, the deployed listener's rules, sign-in and token checks."""
