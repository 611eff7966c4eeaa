"""Task contracts and applications: what exists, with no behaviour."""
