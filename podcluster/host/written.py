"""What a guest writes into a whole page.

What        Kinds of contents, as the range operations take them.
Units       A page of 4 KiB.
Rules       S1-S4 for the pattern; ZERO and DATA are the two that Xen tells apart [P9, P10].
"""

from typing import Final

ZERO: Final = 0
DATA: Final = 1  # something within its first 128 bytes
PATTERN: Final = 2  # the scrub pattern of the guest, all over; plain data where Xen knows of none
