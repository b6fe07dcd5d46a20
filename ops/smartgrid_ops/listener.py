"""The listening socket: bound by whoever must know at once whether the port is free, used by who serves."""

import contextlib
import ctypes
import errno
import socket
import struct
import sys

BACKLOG = 1024

_ATTACH_FILTER = 26  # SO_ATTACH_FILTER and SO_DETACH_FILTER of Linux, which the socket module does not name
_DETACH_FILTER = 27
_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0 bytes


class PortInUse(Exception):
    """Another program listens there."""


def bind(host: str, port: int) -> socket.socket:
    """
    Return a socket bound to *host* and *port* that does not listen yet, so that clients are still refused.

    Raises:
        PortInUse: Another program listens there.
        OSError: The address is none of this machine's, or the port is not ours to use.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # old connections may still wind down
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _translated(error, host, port) from error
    return sock


def listen(sock: socket.socket) -> None:
    """
    Start to accept connections on *sock*.

    Raises:
        PortInUse: Another program got there first.
    """
    if sys.platform == "linux":
        _detach_filter(sock)  # an earlier user of the socket may have held off
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        host, port = sock.getsockname()[:2]
        raise _translated(error, str(host), int(port)) from error
    sock.setblocking(False)  # noqa: FBT003 - the only form there is


def _detach_filter(sock: socket.socket) -> None:
    with contextlib.suppress(FileNotFoundError):  # there is none
        sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)


def hold_off(sock: socket.socket) -> None:
    """
    Let no new connection come to the listening *sock*, while those that are open or queued live on.

    Closing a listening socket resets connections that were made but not yet accepted: their clients think that they
    asked. Here the kernel drops the first packet of a new connection instead; it is sent again a second later, and by
    then refused. Elsewhere than on Linux nothing happens.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_DROP_ALL)
    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


def _translated(error: OSError, host: str, port: int) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"{host}:{port} is in use; choose another SMARTGRID_PORT")
    return error
