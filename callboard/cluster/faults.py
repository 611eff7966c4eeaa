"""How a call to the cluster's API fails."""

from __future__ import annotations

from callboard.errors import CallboardError


class ClusterError(CallboardError):
    """The API server did not do what was asked."""


class ClusterAway(ClusterError):
    """It does not answer, or not now."""


class ClusterForbids(ClusterError):
    """The service account lacks a permission."""
