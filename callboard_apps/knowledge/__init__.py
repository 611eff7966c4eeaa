"""The application `knowledge`: pages of the web become titles, texts, summaries, links, dates."""

from __future__ import annotations

from callboard import App
from callboard_apps.knowledge.contracts import AI, CONTRACTS, PARSING

app = App(
    "knowledge",
    contracts=CONTRACTS,
    queues=(PARSING, AI),
    tasks="callboard_apps.knowledge.tasks",
    description="Reads pages of the web and summarises them.",
)
