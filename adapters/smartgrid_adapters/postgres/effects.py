"""
How PostgreSQL writes the effects of an append.

Whoever declares an :class:`~smartgrid_commands.ports.Effect` adds a line to :data:`EFFECT_SQL`. A statement that breaks
a constraint, or that touches no row although its effect has a true attribute ``must_match``, refuses the append.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg

from smartgrid_adapters.postgres.facts import file_decision, file_retraction
from smartgrid_adapters.postgres.pool import Connection
from smartgrid_commands.metering import DecisionFiled
from smartgrid_commands.ports import Effect, EffectRefused
from smartgrid_commands.retracting import RetractionFiled

Statement = tuple[str, Sequence[Any] | Mapping[str, Any]]
"""A constant SQL text and its parameters."""

EFFECT_SQL: dict[type[Effect], Callable[[Any], Statement]] = {
    DecisionFiled: file_decision,
    RetractionFiled: file_retraction,
}
"""Kind of effect → the statement that carries it out."""


async def carry_out(conn: Connection, effects: Sequence[Effect]) -> None:
    """
    Write *effects* in the transaction of *conn*, in order.

    Raises:
        EffectRefused: One broke a constraint or found no row; the transaction has to be rolled back.
    """
    for effect in effects:
        text, parameters = EFFECT_SQL[type(effect)](effect)
        try:
            cursor = await conn.execute(text.encode(), parameters)
        except psycopg.IntegrityError as error:
            raise EffectRefused(effect, error.diag.constraint_name or error.sqlstate or "") from error
        if cursor.rowcount == 0 and getattr(effect, "must_match", False):
            raise EffectRefused(effect, "must_match")
