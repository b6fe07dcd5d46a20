"""The listening socket: bound by whoever must know at once whether the port is free, used by who serves."""

import errno
import socket

BACKLOG = 1024


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
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        host, port = sock.getsockname()[:2]
        raise _translated(error, str(host), int(port)) from error
    sock.setblocking(False)  # noqa: FBT003 - the only form there is


def _translated(error: OSError, host: str, port: int) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"{host}:{port} is in use; choose another SMARTGRID_PORT")
    return error
