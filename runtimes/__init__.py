"""One file per inference runtime behind one interface (`runtimes.base`), listed in `runtimes.registry`."""
