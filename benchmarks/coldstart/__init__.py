"""From a new process to the first inference: `python -m benchmarks.coldstart BUNDLE`."""
