"""Other libraries' arrays, in the same memory in and out; and what those libraries follow: gradients, programs."""
