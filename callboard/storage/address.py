"""Where Redis is: URLs and the clients made from them.

`redis://`, `rediss://`, `unix://`, `redis+cluster://host:port,host:port` and
`redis+sentinel://host:port,host:port/SERVICE/DB` (also `rediss+cluster`, `rediss+sentinel` for TLS). User and
password stand before the hosts; query parameters such as `?ssl_ca_certs=/ca.pem` go to the client.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from callboard.errors import InvalidSetting
from callboard.storage.guarded import AsyncGuardedClient, GuardedClient

try:
    from redis.maint_notifications import MaintNotificationsConfig
except ImportError:  # redis-py before 7
    MaintNotificationsConfig = None  # type: ignore[assignment, misc]

Client = redis.Redis | redis.RedisCluster
AsyncClient = redis.asyncio.Redis | redis.asyncio.RedisCluster

#: A reply that takes longer than this is treated as lost; every script may be sent again.
SOCKET_TIMEOUT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 2.0
#: Resends inside one call, within about 300 ms: enough for a dropped connection, short enough for a 503.
RESENDS = 2

_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")


@dataclass(frozen=True)
class Address:
    """A parsed Redis URL. `options` are keyword arguments of redis-py's clients."""

    kind: str
    url: str = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    db: int = 0
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises InvalidSetting for a URL of no known form; the message never holds the password."""
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise InvalidSetting(
                f"CALLBOARD_REDIS_URL: got a URL with the scheme {parts.scheme!r}, "
                f"expected one of {', '.join(_SCHEMES)}."
            )
        base, _, kind = parts.scheme.partition("+")
        options: dict[str, Any] = dict(parse_qsl(parts.query))
        if "decode_responses" in options:
            raise InvalidSetting(
                "CALLBOARD_REDIS_URL: got the option decode_responses; records are bytes, so leave it out."
            )
        if not kind:
            return cls("single", url)
        if base == "rediss":
            options["ssl"] = True
        credentials, _, hosts = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        if user:
            options["username"] = unquote(user)
        if password:
            options["password"] = unquote(password)
        default = 26379 if kind == "sentinel" else 6379
        path = [unquote(word) for word in parts.path.split("/") if word]
        try:
            pairs = tuple(_host(text, default) for text in hosts.split(",") if text)
            db = int(path[1]) if kind == "sentinel" and len(path) > 1 else 0
        except ValueError:
            pairs, db = (), 0
        if not pairs or (kind == "sentinel" and not path):
            example = "HOST:PORT,HOST:PORT" + ("/SERVICE/DB" if kind == "sentinel" else "")
            raise InvalidSetting(
                f"CALLBOARD_REDIS_URL: got an incomplete address, expected {base}+{kind}://{example}."
            )
        return cls(kind, url, pairs, path[0] if kind == "sentinel" else "", db, options)

    @property
    def place(self) -> str:
        """The address alone, its defaults filled in: no user, password or options."""
        if self.kind != "single":
            hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
            return f"{self.kind} {hosts}" + (f"/{self.service}/{self.db}" if self.service else "")
        options = redis.connection.parse_url(self.url)
        where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        return f"{where}/{options.get('db', 0)}"

    def client(
        self, *, socket_timeout: float | None = SOCKET_TIMEOUT_SECONDS, resends: int = RESENDS
    ) -> Client:
        """A client for threads. `socket_timeout` in seconds; None for a client that blocks on lists."""
        common = _common(socket_timeout, Retry(ExponentialWithJitterBackoff(cap=0.2, base=0.05), resends))
        if self.kind == "cluster":
            nodes = [redis.cluster.ClusterNode(host, port) for host, port in self.hosts]
            return redis.RedisCluster(startup_nodes=nodes, **common, **self.options)
        if self.kind == "sentinel":
            guard = redis.Sentinel(self.hosts, sentinel_kwargs={"socket_timeout": CONNECT_TIMEOUT_SECONDS})
            options = {"redis_class": GuardedClient, "db": self.db, **common, **self.options}
            client: redis.Redis = guard.master_for(self.service, **options)
            return client
        return redis.Redis.from_url(self.url, **self._apt(common))

    def async_client(
        self, *, socket_timeout: float | None = SOCKET_TIMEOUT_SECONDS, resends: int = RESENDS
    ) -> AsyncClient:
        """A client for one event loop; as `client`."""
        retry = redis.asyncio.retry.Retry(ExponentialWithJitterBackoff(cap=0.2, base=0.05), resends)
        common = _common(socket_timeout, retry)
        if self.kind == "cluster":
            nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in self.hosts]
            return redis.asyncio.RedisCluster(startup_nodes=nodes, **common, **self.options)
        if self.kind == "sentinel":
            guard = redis.asyncio.Sentinel(
                self.hosts, sentinel_kwargs={"socket_timeout": CONNECT_TIMEOUT_SECONDS}
            )
            options = {"redis_class": AsyncGuardedClient, "db": self.db, **common, **self.options}
            client: redis.asyncio.Redis = guard.master_for(self.service, **options)
            return client
        return redis.asyncio.Redis.from_url(self.url, **self._apt(common))

    def _apt(self, options: dict[str, Any]) -> dict[str, Any]:
        """Without what a socket in the file system does not know."""
        if self.url.startswith("unix:"):
            del options["socket_keepalive"]
        return options


def _host(text: str, default: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), default
    return host.strip("[]"), int(port)


def _common(socket_timeout: float | None, retry: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_keepalive": True,
        "retry": retry,
    }
    if MaintNotificationsConfig is not None:
        # A managed service's own protocol; asking for it costs every new connection a round trip.
        options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return options
