"""The emulated AWS: MiniStack with our own tasks and database door; runs in a virtual environment of its own."""
