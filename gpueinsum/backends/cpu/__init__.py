"""numpy runs plans."""
