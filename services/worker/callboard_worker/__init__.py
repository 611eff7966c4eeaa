"""The worker service: claims tasks and runs their bodies in slots that can be stopped."""
