"""Redis clients, keys and scripts."""
