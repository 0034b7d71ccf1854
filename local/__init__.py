"""A laptop's AWS: runs the synthesized stacks on embedded parts, without an AWS account."""
