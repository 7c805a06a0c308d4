"""The temporary buffers that are live when a program needs most memory."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from tempseg_jax.aot.hlo import Computation, Program, Shape
from tempseg_jax.aot.kernels import source_line

_IN_PLACE = ("while", "opt-barrier", "all-reduce-start", "all-reduce-done")
_ALIASES = ("bitcast", "tuple", "get-tuple-element", *_IN_PLACE)
_NOT_TEMPORARY = (*_ALIASES, "parameter", "constant")
_ArrayId = tuple[str, int]  # name of the instruction, index in its result


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A temporary array."""

    shape: Shape
    source: str  # see `kernels.source_line`
    operation: str  # the JAX operation, or the instruction's name


def live_at_peak(program: Program) -> list[Buffer]:
    """Return the temporary buffers that are live at the peak, the largest first.

    They follow from the order of the instructions, without arguments and results. XLA
    lets some results overwrite an operand that is not needed any more, and memory is
    fragmented, so that their sum differs somewhat from the memory XLA allocates.
    """
    buffers = _peak_of(program, program.entry)
    return sorted(buffers, key=lambda x: -x.shape.bytes)


def _peak_of(program: Program, name: str) -> list[Buffer]:
    computation = program.computations[name]
    instructions = list(computation.values())
    last_use = _last_uses(computation)
    inside = {
        position: _peak_of_called(program, instruction.called)
        for position, instruction in enumerate(instructions)
        if instruction.opcode in ("while", "call", "conditional")
    }
    born: dict[_ArrayId, int] = {}
    change = [0] * (len(instructions) + 1)
    for position, instruction in enumerate(instructions):
        for index, shape in enumerate(instruction.shapes):
            array = (instruction.name, index)
            if instruction.opcode in _NOT_TEMPORARY or array not in last_use:
                continue
            born[array] = position
            change[position] += shape.bytes
            change[last_use[array] + 1] -= shape.bytes
    totals = list(itertools.accumulate(change[:-1]))
    for position, buffers in inside.items():
        totals[position] += sum(buffer.shape.bytes for buffer in buffers)
    peak = totals.index(max(totals))
    live = [x for x in born if born[x] <= peak <= last_use[x]]
    return [_buffer(program, computation, x) for x in live] + inside.get(peak, [])


def _peak_of_called(program: Program, names: Sequence[str]) -> list[Buffer]:
    peaks = [_peak_of(program, name) for name in names]
    return max(peaks, key=lambda buffers: sum(x.shape.bytes for x in buffers))


def _buffer(program: Program, computation: Computation, array: _ArrayId) -> Buffer:
    instruction = computation[array[0]]
    return Buffer(
        instruction.shapes[array[1]],
        source_line(program, instruction),
        instruction.op_name or instruction.name,
    )


def _last_uses(computation: Computation) -> dict[_ArrayId, int]:
    """Return the position of the last use of every array that is not a result."""
    arrays = _arrays_of(computation)
    last_use: dict[_ArrayId, int] = {}
    results: list[_ArrayId] = []
    for position, (name, instruction) in enumerate(computation.items()):
        if instruction.is_root:
            results = arrays[name]
        for used in (name, *instruction.operands):
            last_use |= dict.fromkeys(arrays[used], position)
    for array in results:  # in the caller's memory
        last_use.pop(array, None)
    return last_use


def _arrays_of(computation: Computation) -> Mapping[str, list[_ArrayId]]:
    """Return the arrays that each instruction's result consists of."""
    arrays: dict[str, list[_ArrayId]] = {}
    for name, instruction in computation.items():
        operands = [array for x in instruction.operands for array in arrays[x]]
        if instruction.opcode == "get-tuple-element":
            index = int(instruction.attribute(r"index=(\d+)"))
            arrays[name] = operands[index : index + 1]
        elif instruction.opcode in _ALIASES:
            arrays[name] = operands
        else:
            arrays[name] = [(name, i) for i in range(len(instruction.shapes))]
    return arrays
