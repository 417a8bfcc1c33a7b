"""Slices on engines that exist: executors of worker processes, the GPUs of a machine, runs that survive a crash."""
