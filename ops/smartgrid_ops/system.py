"""The real clock and real randomness."""

import secrets
import time
from datetime import UTC, datetime
from uuid import UUID, uuid4


class SystemClock:
    """The clock of this machine; fulfils ``Clock``."""

    def now(self) -> datetime:
        """Return the present time, UTC, with its offset."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return a time [s] that never goes back."""
        return time.monotonic()


class SystemIds:
    """Randomness of the operating system; fulfils ``Ids``."""

    def uuid(self) -> UUID:
        """Return a random id."""
        return uuid4()

    def token(self, n_bytes: int = 32) -> str:
        """Return *n_bytes* of randomness as URL-safe text."""
        return secrets.token_urlsafe(n_bytes)
