"""A Dramatiq program as it was, but for its broker.

    callboard up examples/dramatiq_program.py     # runs its actors on Callboard's worker
    python examples/dramatiq_program.py           # sends the messages

Dramatiq's own worker runs them too: `callboard up --no-worker` and `dramatiq examples.dramatiq_program`.
"""

from __future__ import annotations

import dramatiq

from callboard import CallboardBroker

# Was: dramatiq.set_broker(RedisBroker(url=…)). Without a URL it takes CALLBOARD_REDIS_URL's.
dramatiq.set_broker(CallboardBroker())


@dramatiq.actor(queue_name="counting", max_retries=3, min_backoff=1000)
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


@dramatiq.actor(queue_name="counting", priority=10)
def say(total: int, name: str = "the text") -> None:
    """Print a total; the line is in the task's log."""
    print(f"{name} has {total} words")


if __name__ == "__main__":
    message = count_words.send("The tide mill wakes twice a day")
    print("sent", message.message_id)
    # Composition is Dramatiq's: the result of the first is the first argument of the second.
    (count_words.message("A day on the cable ferry") | say.message(name="the ferry's log")).run()
    say.send_with_options(args=(6,), delay=2000)
