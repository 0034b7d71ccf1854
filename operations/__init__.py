"""What an operator does with a deployment: `python -m operations COMMAND --env ENV`."""
