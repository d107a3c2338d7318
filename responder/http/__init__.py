"""HTTP: the bridge for callers, the listener for operators."""
