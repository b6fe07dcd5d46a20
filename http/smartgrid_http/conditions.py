"""``If-Match`` and the ids in paths."""

import re
from uuid import UUID

from smartgrid_domain.errors import Finding
from smartgrid_http.call import Call
from smartgrid_http.problems import Problem, invalid

TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"\Z', re.ASCII)
VERSION = re.compile(r"v([1-9][0-9]{0,17})\Z", re.ASCII)
CANONICAL_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.ASCII)


def if_match(call: Call) -> frozenset[int] | None:
    """
    Return the versions that the ``If-Match`` header accepts; None for any.

    A tag that is none of ours, or a weak one, matches nothing.

    Raises:
        Problem: 400, the header is malformed.
    """
    header = call.header(b"if-match")
    if header is None or header.strip() == "*":
        return None
    versions: set[int] = set()
    for part in header.split(","):
        tag = TAG.match(part.strip())
        if tag is None:
            raise invalid([Finding("@If-Match", "bad_format", 'Write If-Match as the ETag was answered, such as "v3"')])
        version = VERSION.match(tag[2])
        if version and not tag[1]:
            versions.add(int(version[1]))
    return frozenset(versions)


def uuid_in_path(text: str) -> UUID:
    """
    Return the id that a path names.

    Raises:
        Problem: 404; what is no id names nothing.
    """
    if not CANONICAL_ID.match(text.lower()):
        raise not_found(text)
    return UUID(text)


def not_found(name: str) -> Problem:
    """Return the problem that nothing is called *name*, or nothing that the caller may know of."""
    return Problem(404, "not_found", f"Nothing is recorded under {name[:128]}")
