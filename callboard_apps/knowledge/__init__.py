"""The application `knowledge`: pages become titles, texts, summaries, links, dates."""
