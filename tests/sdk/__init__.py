"""The official SDKs against the simulator, and the package beside them."""
