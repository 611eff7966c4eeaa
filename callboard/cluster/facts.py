"""What the cluster's API says, as plain facts: only what somebody here asks for. Times in ms since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container ended, once."""

    reason: str
    exit_code: int
    started: int
    finished: int


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod: its last ends, and why it waits ("" while it does not)."""

    name: str
    ended: tuple[Termination, ...] = ()
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod. `disruption`: the reason of its DisruptionTarget condition; `unschedulable`: why no node."""

    name: str
    created: int
    deleted: bool = False
    phase: str = ""
    reason: str = ""
    message: str = ""
    disruption: str = ""
    unschedulable: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    containers: tuple[Container, ...] = ()


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Deployment of workers. `failure`: why its pods cannot be made; `selector`: the labels of its pods."""

    name: str
    queues: tuple[str, ...]
    replicas: int
    ready: int
    paused: bool = False
    failure: str = ""
    selector: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """A HorizontalPodAutoscaler of `target`, a Deployment. `conditions`: type to (status, reason).

    `keda`: KEDA made it, and does the step from and to zero itself.
    """

    name: str
    target: str
    most: int
    keda: bool = False
    conditions: Mapping[str, tuple[bool, str]] = field(default_factory=dict)
