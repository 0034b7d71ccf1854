"""What can be known of an AWS account before anything is deployed to it."""
