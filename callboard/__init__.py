"""Callboard: background tasks that a team can post, watch and scale."""

__version__ = "0.1.0"
