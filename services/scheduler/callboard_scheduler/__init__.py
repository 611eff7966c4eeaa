"""The scheduler service: submits tasks on time and runs the maintenance loops."""
