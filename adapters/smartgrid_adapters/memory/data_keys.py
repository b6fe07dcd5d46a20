"""Wrapped data keys in memory."""

from collections.abc import Collection, Mapping


class MemoryDataKeys:
    """Fulfils ``smartgrid_adapters.sealing.DataKeys``."""

    def __init__(self) -> None:
        self._wrapped: dict[str, bytes | None] = {}

    async def load(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        return {subject: self._wrapped[subject] for subject in subjects if subject in self._wrapped}

    async def add(self, wrapped: Mapping[str, bytes]) -> None:
        self._wrapped = {**wrapped, **self._wrapped}

    def destroy(self, subject: str) -> None:
        """Forget the key of *subject* for good."""
        self._wrapped[subject] = None
