"""Which version of a read model answers, remembered by who asks."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from psycopg import errors

from smartgrid_adapters.postgres.pool import Connection, Pool, run_safely
from smartgrid_commands.ports import StoreUnavailable
from smartgrid_projections.ports import Unavailable

T = TypeVar("T")

TRIES: Final = 5
"""Versions that one question may meet, each gone the moment it was found."""

_ACTIVE = "SELECT version FROM projection_versions WHERE name = %s AND state = 'active'"

POSITION: Final = """
    SELECT c.position FROM projection_checkpoints c JOIN projection_versions v USING (name, version)
    WHERE c.name = %(projection)s AND c.version = %(version)s AND v.state = 'active' AND c.log = %(log)s
"""
"""The position of a version in the snapshot of a question; no row when another version answers in it."""


class NotAnswering(Exception):
    """In this snapshot another version answers."""


class AnsweringVersion:
    """
    The version of one projection that answers.

    A question asks the tables of the version that answered last, and in the same snapshot whether it still does; so
    it costs nothing until there is a switch, and never sees rows of two versions.
    """

    def __init__(self, pool: Pool, name: str) -> None:
        self._pool = pool
        self._name = name
        self._version: int | None = None

    async def ask(self, question: Callable[[Connection, int], Awaitable[T]]) -> T:
        """
        Return what *question* finds in the version that answers.

        Args:
            question: Reads one snapshot of a version; raises :class:`NotAnswering` when another answers in it.

        Raises:
            Unavailable: The database cannot be reached.
        """
        return await self.tried(
            lambda version: run_safely(self._pool, lambda connection: question(connection, version))
        )

    async def tried(self, question: Callable[[int], Awaitable[T]]) -> T:
        """Do so for a *question* that finds a connection by itself."""
        try:
            for _ in range(TRIES):
                try:
                    return await question(await self._known())
                except (NotAnswering, errors.UndefinedTable):
                    self._version = None
        except StoreUnavailable as error:
            raise Unavailable(str(error)) from error
        raise Unavailable(f"no version of {self._name} answers for longer than a moment")

    async def _known(self) -> int:
        async def unit(connection: Connection) -> int:
            row = await (await connection.execute(_ACTIVE, (self._name,))).fetchone()
            return 1 if row is None else int(row[0])

        version = self._version
        if version is None:
            version = self._version = await run_safely(self._pool, unit)
        return version
