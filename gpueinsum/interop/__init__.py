"""Other libraries' arrays and hooks."""
