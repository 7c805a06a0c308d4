"""Damage to files: flipped bits, truncation, deletion, zeros, and appended bytes."""

import random
from pathlib import Path


def flip(data: bytes, random_: random.Random) -> bytes:
    """Flip one bit, or a few."""
    changed = bytearray(data or b"\0")
    for _ in range(random_.choice((1, 1, 1, 2, 8))):
        changed[random_.randrange(len(changed))] ^= 1 << random_.randrange(8)
    return bytes(changed)


def truncate(data: bytes, random_: random.Random) -> bytes:
    """Cut the end off."""
    return data[: random_.randrange(len(data))] if data else data


def zeros(data: bytes, random_: random.Random) -> bytes:
    """Overwrite a part with zeros, as a block that was never written."""
    start = random_.randrange(len(data) + 1)
    size = min(len(data) - start, 1 << random_.randrange(13))
    return data[:start] + bytes(size) + data[start + size :]


def append(data: bytes, random_: random.Random) -> bytes:
    """Add random bytes at the end."""
    return data + random_.randbytes(random_.randrange(1, 100))


CHANGES = (flip, flip, flip, truncate, zeros, append)


def damage(path: Path, random_: random.Random) -> str:
    """Damage a file or delete it; return what was done, in words."""
    if random_.random() < 0.15:
        path.unlink()
        return "delete"
    change = random_.choice(CHANGES)
    path.write_bytes(change(path.read_bytes(), random_))
    return change.__name__
