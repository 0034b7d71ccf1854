"""Examples to run, read and copy; nothing else in this repository imports them."""
