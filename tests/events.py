"""Read TensorBoard's event files without TensorFlow."""

import struct

from tensorboardX.proto.event_pb2 import Event


def read_events(path):
    """Yield the events of one file."""
    data, position = path.read_bytes(), 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        yield Event.FromString(data[position + 12 : position + 12 + length])
        position += 16 + length
