"""What is kept of a task."""
