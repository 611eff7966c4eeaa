"""What redis-py raises, in our words. One table; nothing above storage catches a redis exception."""

from __future__ import annotations

import redis

from callboard.errors import CallboardError, StoreFull, StoreUnavailable, StoreUnfit
from callboard.metrics import metrics

#: Words of replies that pass: a failover, a full disk, a resharding.
_PASSING = (
    "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF", "BUSY",
    "UNBLOCKED", "MOVED", "ASK",
)  # fmt: skip
#: Which servers may be used, in words.
NEEDED = "Callboard needs Redis 7.0 or newer, or Valkey 7.2 or newer"


class StoreRefused(CallboardError):
    """Redis refused a command for a reason that waiting does not cure; the message is Redis's own."""

    code = "internal"


def translate(error: Exception) -> CallboardError:
    """Our error for one of redis-py's (raise it `from` the original). Counts it in the metrics."""
    metrics.redis_errors.inc()
    text = str(error)
    if isinstance(error, redis.exceptions.OutOfMemoryError) or text.startswith("OOM"):
        return StoreFull("Redis has reached its maxmemory and refuses writes.")
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError):
        return StoreUnfit(f"Redis refuses this user: {text}")
    if isinstance(error, redis.exceptions.ResponseError) and not isinstance(
        error,
        redis.exceptions.ReadOnlyError | redis.exceptions.ClusterError | redis.exceptions.TryAgainError,
    ):
        if "HELLO" in text and "unknown command" in text:
            # It cannot even be asked for its version.
            return StoreUnfit(f"Redis is older than 6.0; {NEEDED}. It said: {text}")
        words = text.replace("-", " ").split(" ")
        if not any(word in _PASSING for word in words[:8]):
            return StoreRefused(f"Redis refused a command: {text}")
    return StoreUnavailable(f"Redis does not answer: {text or type(error).__name__}")
