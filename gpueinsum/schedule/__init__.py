"""From a plan to what one device runs for it."""
