"""
How a process notices that the one that started it is gone, however it went.

The parent keeps the writing end of a pipe and passes the reading end on; the kernel closes the writing end with the
parent. Unlike a parent-death signal this works on every system and does not depend on the thread that forked.
"""

import os
import signal
import threading
import time

LAST_S = 8.0
"""How long a process whose parent is gone may take to end [s]."""


def follow(descriptor: int) -> None:
    """End this process when the pipe behind *descriptor* closes: by SIGTERM first, for good :data:`LAST_S` later."""

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_S)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
