"""What a look at an AWS account found: shared by `preflight` and `verify_account`."""
