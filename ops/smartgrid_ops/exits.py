"""Exit codes of every command that runs something."""

DRAINED = 0
CRASH = 1
SETTING = 2
HOME_IN_USE = 3
PORT_IN_USE = 4


class Exit(Exception):
    """
    End the process with *code*.

    Attributes:
        code: One of the codes above.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
