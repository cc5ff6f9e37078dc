"""Where a graph differs from its network: layer by layer."""
