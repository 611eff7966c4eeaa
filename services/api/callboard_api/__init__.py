"""The API service: HTTP, streams and the dashboard over the library's doors."""
