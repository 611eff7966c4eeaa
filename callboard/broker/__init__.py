"""The Dramatiq broker and consumer, and the scripts that move tasks."""
