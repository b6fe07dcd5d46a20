"""Zstandard at level 1 for short runs of bytes whose length is known, from the standard library where it has it."""

import sys
from typing import Final

LEVEL: Final = 1
_MAGIC: Final = b"\x28\xb5\x2f\xfd"  # the same four bytes begin every frame, so they are not kept


class NotAFrame(ValueError):
    """The bytes are not one whole frame of the expected length."""


if sys.version_info >= (3, 14):
    from compression import zstd

    def squeeze(data: bytes) -> bytes:
        """Return *data* compressed; it may be longer than before."""
        return zstd.compress(data, level=LEVEL)[len(_MAGIC) :]

    def unsqueeze(data: bytes, size: int) -> bytes:
        """
        Return the *size* bytes that :func:`squeeze` was given.

        Raises:
            NotAFrame: They are not there, or there are more; never more than *size* + 1 bytes are made.
        """
        reader = zstd.ZstdDecompressor()
        try:
            found = reader.decompress(_MAGIC + data, max_length=size + 1)
        except zstd.ZstdError as error:
            raise NotAFrame(str(error)) from error
        if len(found) != size or not reader.eof or reader.unused_data:
            raise NotAFrame("another length")
        return found

else:
    import zstandard

    # Making one costs ten times its use, and one must not serve two threads: take one, use it, put it back.
    _writers: Final[list[zstandard.ZstdCompressor]] = []
    _readers: Final[list[zstandard.ZstdDecompressor]] = []

    def squeeze(data: bytes) -> bytes:
        """Return *data* compressed; it may be longer than before."""
        try:
            writer = _writers.pop()
        except IndexError:
            writer = zstandard.ZstdCompressor(level=LEVEL)
        frame = writer.compress(data)
        _writers.append(writer)
        return frame[len(_MAGIC) :]

    def unsqueeze(data: bytes, size: int) -> bytes:
        """
        Return the *size* bytes that :func:`squeeze` was given.

        Raises:
            NotAFrame: They are not there, or there are more; never more than *size* bytes are made.
        """
        frame = _MAGIC + data
        try:
            if zstandard.frame_content_size(frame) != size:
                raise NotAFrame("another length")
            try:
                reader = _readers.pop()
            except IndexError:
                reader = zstandard.ZstdDecompressor()
            found = reader.decompress(frame, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise NotAFrame(str(error)) from error
        _readers.append(reader)
        return found
