"""The emulated AWS: MiniStack with tasks and a database door of our own, in its own virtual environment."""
