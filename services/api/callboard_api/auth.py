"""Who may do what: the admin key, and the guard of an API that has none."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from typing import Final, Literal

from starlette.types import Scope

from callboard.errors import InvalidSetting
from callboard.settings import Settings
from callboard_api.problems import Rejected

ScopeName = Literal["read", "submit", "operate", "admin"]

_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_INCLUDED: Final[dict[str, frozenset[str]]] = {
    "read": frozenset({"read"}),
    "submit": frozenset({"submit"}),
    "operate": frozenset({"submit", "operate"}),
    "admin": frozenset({"read", "submit", "operate", "admin"}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `owner` is put on what it submits; `sees` is the owner whose things it sees, None for all."""

    owner: str
    sees: str | None
    scopes: frozenset[str]

    def require(self, scope: ScopeName) -> None:
        """Raises Rejected (403) without this scope."""
        if scope not in self.scopes:
            raise Rejected("forbidden", f"This needs a key with the scope {scope!r}.")


ADMIN: Final = Principal("default", None, _INCLUDED["admin"])


class Guard:
    """Lets requests in: by the admin key, or without one from this machine alone.

    Raises InvalidSetting for an API without a key on an address that others reach.
    """

    def __init__(self, settings: Settings) -> None:
        key = settings.admin_key.get_secret_value() if settings.admin_key else None
        if key is None and not is_loopback(settings.api_host):
            raise InvalidSetting(
                f"CALLBOARD_API_HOST: expected a loopback address, since there is no CALLBOARD_ADMIN_KEY and "
                f"without a key everybody who reaches the API is its admin; got {settings.api_host!r}. "
                "Set CALLBOARD_ADMIN_KEY (or CALLBOARD_ADMIN_KEY_FILE)."
            )
        self._digest = None if key is None else _digest(key.encode())

    @property
    def open(self) -> bool:
        """Whether there is no key."""
        return self._digest is None

    def check_source(self, scope: Scope) -> None:
        """Keep web pages of other sites out of an API without a key (DNS rebinding, drive-by posts).

        Raises Rejected (403).
        """
        if not self.open:
            return
        port = scope["server"][1] if scope.get("server") else None
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        if len(hosts) != 1 or not _is_local(hosts[0], port):
            raise Rejected(
                "forbidden-host",
                f"Without a key the API answers to localhost, 127.0.0.1 and [::1] with port {port} alone.",
            )
        for origin in origins:
            if not origin.startswith("http://") or not _is_local(origin.removeprefix("http://"), port):
                raise Rejected(
                    "forbidden-origin", "Without a key the API takes no requests from other sites' pages."
                )

    def principal(self, scope: Scope) -> Principal:
        """Who sent this request. Raises Rejected (401)."""
        if self._digest is None:
            return ADMIN
        given = _values(scope, b"authorization")
        kind, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        # Digests, so that neither the length nor the first wrong character shows in the time.
        if kind.lower() == "bearer" and hmac.compare_digest(
            _digest(key.strip().encode("latin-1")), self._digest
        ):
            return ADMIN
        told = "This key is not valid." if given else "This needs a key: Authorization: Bearer …"
        raise Rejected("unauthorized", told, headers={"WWW-Authenticate": "Bearer"})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_local(authority: str, port: int | None) -> bool:
    name, colon, number = authority.lower().rpartition(":")
    if not colon or number.endswith("]"):
        name, number = authority.lower(), "80"
    return name in _LOCAL_NAMES and number == str(port)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
