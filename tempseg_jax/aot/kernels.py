"""The kernels that a program launches: what each computes, reads and writes."""

import dataclasses
import enum
import re
from collections.abc import Iterator

from tempseg_jax.aot import products
from tempseg_jax.aot.hlo import Computation, Frame, Instruction, Program, Shape


class Kind(enum.StrEnum):
    """What a kernel is for."""

    PRODUCTS = "convolutions and products"
    OPTIMIZER = "optimizer and copies"
    BATCH_NORM = "BatchNorm"
    LOSS = "full-resolution loss"
    ELEMENTWISE = "elementwise"
    COLLECTIVES = "collectives"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One launch of a kernel, or of a copy by the driver."""

    instruction: Instruction
    kind: Kind
    launches: int  # above 1 in the body of a loop
    bytes: int  # per launch: operands and results once each
    flops: int  # per launch
    dtype: str | None  # of its products
    source: str  # file:line of this package, or the operation's name


_FREE = {
    "parameter",
    "constant",
    "get-tuple-element",
    "bitcast",
    "tuple",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
}
_COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?$"
)
_MOVES = _FREE | {"copy", "transpose", "convert", "reshape"}
_UPDATE = {"apply_updates", "update_player", "gradient_metrics"}  # of steps and optim
_BATCH_NORM = re.compile(r"batch_?norm", re.IGNORECASE)


def list_kernels(program: Program) -> list[Kernel]:
    """Return all kernels of one run of the program, in order.

    The body of a loop is listed once, with the number of its iterations (1 if XLA does
    not know it); of a conditional, the branch that moves most bytes.
    """
    return list(_kernels_of(program, program.entry, launches=1))


def _kernels_of(program: Program, name: str, *, launches: int) -> Iterator[Kernel]:
    computation = program.computations[name]
    for instruction in computation.values():
        opcode = instruction.opcode
        if opcode in _FREE or opcode.endswith("-done"):
            continue
        if opcode == "while":
            trips = instruction.attribute(r'known_trip_count":\{"n":"(\d+)"')
            for called in instruction.called:
                yield from _kernels_of(
                    program, called, launches=launches * int(trips or 1)
                )
        elif opcode in ("call", "async-start"):
            for called in instruction.called:
                yield from _kernels_of(program, called, launches=launches)
        elif opcode == "conditional":
            branches = [
                list(_kernels_of(program, called, launches=launches))
                for called in instruction.called
            ]
            yield from max(branches, key=lambda x: sum(k.bytes for k in x))
        else:
            yield _kernel(program, instruction, computation, launches=launches)


def _kernel(
    program: Program, instruction: Instruction, within: Computation, *, launches: int
) -> Kernel:
    flops = products.product_flops(program, instruction, within)
    return Kernel(
        instruction=instruction,
        kind=_kind(program, instruction, flops=flops),
        launches=launches,
        bytes=_bytes_written(program, instruction, within)
        + _bytes_read(program, instruction, within),
        flops=flops,
        dtype=products.product_dtype(program, instruction, within),
        source=source_line(program, instruction),
    )


def _kind(program: Program, instruction: Instruction, *, flops: int) -> Kind:
    inner = _fused(program, instruction)
    stack = _stack_of(program, instruction)
    functions = {frame.function.split(".")[0] for frame in stack}
    if _COLLECTIVE.match(instruction.opcode):
        return Kind.COLLECTIVES
    if flops:
        return Kind.PRODUCTS
    if functions & _UPDATE or {x.opcode for x in inner} <= _MOVES:
        return Kind.OPTIMIZER
    if any(_BATCH_NORM.search(frame.function) for frame in stack):
        return Kind.BATCH_NORM
    own = (frame.file for frame in stack if "tempseg_jax/" in frame.file)
    if "tempseg_jax/objective/" in next(own, ""):  # not a network that a loss calls
        return Kind.LOSS
    return Kind.ELEMENTWISE


def source_line(program: Program, instruction: Instruction) -> str:
    """Return the innermost line of this package that an instruction comes from.

    An instruction that the compiler added has none; its name is returned instead, and
    that of its operation if it has one.
    """
    for frame in _stack_of(program, instruction):
        if found := re.search(r"(tempseg_jax/.*\.py)$", frame.file):
            return f"{found[1]}:{frame.line}"
    return instruction.op_name or instruction.name


def result_shapes(instruction: Instruction) -> tuple[Shape, ...]:
    """Return the shapes of the results, without workspaces and repeated operands."""
    if products.is_library_call(instruction):
        return instruction.shapes[:1]  # a second one is workspace
    if instruction.opcode.endswith("-start"):
        return instruction.shapes[-len(instruction.operands) :]
    return instruction.shapes


def _stack_of(program: Program, instruction: Instruction) -> tuple[Frame, ...]:
    """Return where an instruction, or else the last one fused into it, comes from."""
    inner = reversed(_fused(program, instruction))
    stacks = (program.stack(x) for x in (instruction, *inner))
    return next(filter(None, stacks), ())


def _fused(program: Program, instruction: Instruction) -> list[Instruction]:
    """Return the instructions of a fusion, or the instruction itself."""
    if instruction.opcode != "fusion":
        return [instruction]
    return [
        x for name in instruction.called for x in program.computations[name].values()
    ]


def _bytes_written(
    program: Program, instruction: Instruction, within: Computation
) -> int:
    """Return the bytes of the results; of an update in place, those of the update."""
    if instruction.opcode == "dynamic-update-slice":
        return _size(within, instruction.operands[1])
    inner = {x.name: x for x in _fused(program, instruction)}
    roots = [x for x in inner.values() if x.is_root and x is not instruction]
    if roots and roots[0].opcode == "dynamic-update-slice":
        return _size(inner, roots[0].operands[1])
    return sum(shape.bytes for shape in result_shapes(instruction))


def _bytes_read(program: Program, instruction: Instruction, within: Computation) -> int:
    """Return the bytes of the operands, each once; of a slice, those of the slice."""
    if instruction.opcode in ("dynamic-slice", "gather", "slice"):
        return sum(shape.bytes for shape in instruction.shapes)
    if instruction.opcode == "dynamic-update-slice":
        return _size(within, instruction.operands[1])
    inner = _fused(program, instruction) if instruction.opcode == "fusion" else []
    parameters = {x.arguments: x.name for x in inner if x.opcode == "parameter"}
    total = 0
    for name in dict.fromkeys(instruction.operands):
        number = str(instruction.operands.index(name))
        total += _bytes_of_operand(_size(within, name), parameters.get(number), inner)
    return total


def _bytes_of_operand(
    size: int, parameter: str | None, inner: list[Instruction]
) -> int:
    """Return the bytes that a fusion reads of one operand."""
    users = [x for x in inner if parameter in x.operands]
    if users and all(x.opcode in ("slice", "dynamic-slice", "gather") for x in users):
        return min(size, sum(shape.bytes for x in users for shape in x.shapes))
    if users and all(
        x.opcode == "dynamic-update-slice" and x.operands[0] == parameter for x in users
    ):
        return 0
    return size


def _size(within: Computation, name: str) -> int:
    return sum(shape.bytes for shape in within[name].shapes)
