"""The two signals that mean "finish and go"."""

import asyncio
import os
import signal


def stop_event() -> asyncio.Event:
    """
    Return an event that the first SIGTERM or SIGINT sets; a second one ends the process at once.

    It must be installed before anything else that looks at signals.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)
    return stop
