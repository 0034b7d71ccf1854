"""The emulated AWS: MiniStack with our own tasks and database door, in an environment of its own."""
