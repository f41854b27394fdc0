"""Numbers of some bits, as headers of video streams hold them."""

from __future__ import annotations

_LONGEST = 64  # bytes; every field that is looked for lies within them


class Bits:
    """Reads big-endian numbers from the beginning of ``content``."""

    def __init__(self, content: bytes) -> None:
        head = content[:_LONGEST]
        self._value = int.from_bytes(head, "big")
        self._left = 8 * len(head)

    @property
    def overrun(self) -> bool:
        """Whether more was read than there is."""
        return self._left < 0

    def take(self, count: int) -> int:
        """The next ``count`` bits; zero beyond the end."""
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1) if self._left >= 0 else 0

    def golomb(self) -> int:
        """The next unsigned Exp-Golomb number (ITU-T H.264, 9.1); zero beyond the end."""
        left = max(self._left, 0)
        rest = self._value & ((1 << left) - 1)
        zeros = left - rest.bit_length()
        self._left = left - 2 * zeros - 1
        return (rest >> self._left) - 1 if self._left >= 0 else 0
