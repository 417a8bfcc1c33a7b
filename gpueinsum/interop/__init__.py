"""What other libraries meet: their arrays, their hooks, their contraction trees."""
