"""Decimal texts: what a file says is what is sent, digit by digit."""

import re
from decimal import Context, Decimal, Inexact

from msgspec import Struct

LONGEST = 64  # characters; the API takes no longer number
EXACT_DIGITS = 15  # every decimal of so many digits survives the way through a float64

_NUMBER = re.compile(r"(?P<sign>[+-]?)(?P<whole>[0-9]*)(?:\.(?P<part>[0-9]*))?(?P<exp>[eE][+-]?[0-9]+)?\Z")
_SUM = Context(prec=60, traps=[Inexact])


class NotANumber(ValueError):
    """A cell that should hold a number holds something else."""


class Inaccurate(ValueError):
    """A running total has more digits than a float64 carries."""


def number_text(cell: str, *, decimal_mark: str = ".") -> str:
    """
    Return *cell* as a JSON number with the digits it has.

    Guarantees:
        * A cell that is a JSON number already is returned as it is.
        * The value never changes.

    Raises:
        NotANumber: It is none, or longer than the API takes.

    Example:
        >>> number_text("234.840"), number_text("+.5"), number_text("1250,75", decimal_mark=",")
        ('234.840', '0.5', '1250.75')
    """
    text = cell.strip()
    if decimal_mark != ".":
        if "." in text:
            raise NotANumber(f"{cell!r} is no number with the decimal mark {decimal_mark!r}")
        text = text.replace(decimal_mark, ".")
    found = _NUMBER.match(text)
    if found is None or not (found["whole"] or found["part"]) or len(text) > LONGEST:
        raise NotANumber(f"{cell!r} is no number")
    sign = "-" if found["sign"] == "-" else ""
    whole = found["whole"].lstrip("0") or "0"
    part = f".{found['part']}" if found["part"] else ""
    return f"{sign}{whole}{part}{found['exp'] or ''}"


class RunningTotal(Struct):
    """
    A register made from the energy of each interval, in exact decimals.

    Attributes:
        total: Where the register stands, in the unit of the file.
    """

    total: Decimal

    def add(self, number: str) -> str:
        """
        Add *number* and return the register as a JSON number.

        Raises:
            NotANumber: *number* is negative: energy of one direction never is.
            Inaccurate: The total no longer fits the numbers of the API; nothing was added.
        """
        amount = Decimal(number)
        if amount < 0:
            raise NotANumber(f"{number} is negative; a register only counts up")
        total = _SUM.add(self.total, amount)
        text = plain_text(total)
        self.total = total
        return text


def plain_text(value: Decimal) -> str:
    """
    Return *value* without an exponent.

    Raises:
        Inaccurate: It has more significant digits than a float64 carries for certain.
    """
    text = f"{value:f}"
    if len(text.replace(".", "").strip("-0").rstrip("0")) > EXACT_DIGITS:
        raise Inaccurate(f"{text} has more than {EXACT_DIGITS} digits")
    return text
