"""Adapters to foreign services, one file each; what can go wrong with them is in `failures`."""
