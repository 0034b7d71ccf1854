"""What is watched, who is told, and what they look at. Deployed again, nothing of it is missed."""
