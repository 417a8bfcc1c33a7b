"""What people look at: explanations, measurements, checks, the command line."""
