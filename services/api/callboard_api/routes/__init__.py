"""The routes, a file for each noun; `table` in app.py puts them together."""
