"""Measurements of Callboard beside Dramatiq and Huey. `python -m bench`."""
