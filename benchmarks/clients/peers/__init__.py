"""One file per library: the least code that makes the call."""
