"""The process that children are forked from: it imports the task modules once and then only forks.

Started by `forkserver.Forkserver`, which is its only caller. It has one thread and runs no task.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from callboard.catalog import loading
from callboard.errors import CallboardError
from callboard_worker.slots import birth, child, frame, kernel

_MOST_DESCRIPTORS = 4


def main(connection_descriptor: int, lifeline: int) -> None:
    """Serve until the worker closes its end, or is gone."""
    kernel.name_process("cb-forkserver")
    connection = socket.socket(fileno=connection_descriptor)
    os.set_inheritable(lifeline, False)
    connection.set_inheritable(False)
    own_end = kernel.kill_on_hangup(lifeline)
    # The terminal's Ctrl-C is for the worker, which then closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The worker may block more than that; programs that a body starts would inherit it.
    signal.pthread_sigmask(signal.SIG_SETMASK, child.STOP_SIGNALS)
    reader = frame.Reader()
    engines: list[Any] = []
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, 65536, _MOST_DESCRIPTORS)
        if not data:
            connection.close()
            return
        for message in reader.feed(data):
            if message[0] == frame.PREPARE:
                connection.sendall(_prepare(message[1], engines))
            elif message[0] == frame.FORK:
                settings = birth.Settings(**message[1])
                inherited = [connection.fileno()] + ([] if own_end is None else [own_end])
                connection.sendall(_fork(inherited, lifeline, settings, descriptors, engines))
                for descriptor in descriptors:
                    os.close(descriptor)
                descriptors = []


def _prepare(settings: dict[str, Any], engines: list[Any]) -> bytes:
    if not settings["adopted"]:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    logging.getLogger().setLevel(settings["log_level"])
    try:
        loading.load(settings["modules"])
    except CallboardError as error:
        return frame.pack(frame.BROKEN, str(error))
    engines += birth.database_engines()
    # What is there now is shared by all children: never touched by a collection, it is never copied.
    gc.collect()
    gc.freeze()
    return frame.pack(frame.PREPARED, kernel.thread_names())


def _fork(
    inherited: list[int],
    lifeline: int,
    settings: birth.Settings,
    descriptors: list[int],
    engines: list[Any],
) -> bytes:
    _flush()
    try:
        pid = _fork_twice() if settings.adopted else os.fork()
    except OSError as error:
        return frame.pack(frame.REFUSED, f"No process can be forked: {error}")
    if pid == 0:
        for descriptor in inherited:
            os.close(descriptor)
        _become_child(lifeline, settings, descriptors, engines)
    return frame.pack(frame.FORKED, pid)


def _fork_twice() -> int:
    """Fork a process that is nobody's child, so that the worker adopts it and learns how it ends.

    Returns its id here and 0 there. Raises OSError.
    """
    receiver, sender = os.pipe()
    between = os.fork()
    if between == 0:
        os.close(receiver)
        try:
            pid = os.fork()
        except OSError as error:
            os.write(sender, b"-%d" % (error.errno or 1))
            os._exit(0)
        if pid:
            os.write(sender, b"%d" % pid)
            os._exit(0)
        os.close(sender)
        return 0
    os.close(sender)
    try:
        answer = int(os.read(receiver, 32) or b"-11")
    finally:
        os.close(receiver)
        os.waitpid(between, 0)
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return answer


def _become_child(
    lifeline: int, settings: birth.Settings, descriptors: list[int], engines: list[Any]
) -> NoReturn:
    code = 1
    try:
        code = child.main(lifeline, settings, descriptors, engines)
    except BaseException:
        with contextlib.suppress(Exception):
            logging.getLogger(__name__).critical("A child process failed.", exc_info=True)
    finally:
        with contextlib.suppress(Exception):
            _flush()
        os._exit(code)


def _flush() -> None:
    """Whatever stands in a buffer at a fork is written once more by each child."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
