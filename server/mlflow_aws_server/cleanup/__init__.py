"""What was deleted goes for good: `gc` on a schedule."""
