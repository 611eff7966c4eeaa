"""Acme's own package."""
