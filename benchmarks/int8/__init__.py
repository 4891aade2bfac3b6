"""What INT8 brings and costs beside stock conversions and NNCF's default, and whether runtimes agree on it."""
