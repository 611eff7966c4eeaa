"""What streams of events are made of: cursors, windows, the one reader, its listeners, the wire."""
