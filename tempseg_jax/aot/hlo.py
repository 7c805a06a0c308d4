"""Parser of optimized HLO text, as `jax.stages.Compiled.as_text` returns it.

Only what a cost model needs is read: instructions with their shapes and operands, the
computations that they call, and the line of source code that each comes from.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

_BITS = re.compile(r"\d+")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(ENTRY )?%([^\s(]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%(\S+) = (.*)")
_OPCODE = re.compile(r" ?([a-z][\w-]*)\(")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|called_computations|branch_computations|"
    r"true_computation|false_computation)=\{?((?:%[^\s,}]+(?:, )?)+)"
)
_TABLE = re.compile(r"^(FileNames|FunctionNames|FileLocations|StackFrames)$")


@dataclasses.dataclass(frozen=True)
class Shape:
    """The dtype and dimensions of one array."""

    dtype: str
    dims: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size in bytes; types below one byte are padded to one."""
        bits = _BITS.search(self.dtype)
        return math.prod(self.dims) * (max(1, int(bits[0]) // 8) if bits else 1)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # of the result; several if it is a tuple
    operands: tuple[str, ...]  # names of instructions of the same computation
    arguments: str  # text between the parentheses
    attributes: str  # text after them
    is_root: bool

    def attribute(self, pattern: str) -> str | None:
        """Return the first group of a regular expression in the attributes."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that the instruction calls."""
        return tuple(
            name
            for names in _CALLED.findall(self.attributes)
            for name in re.findall(r"%([^\s,}]+)", names)
        )

    @property
    def op_name(self) -> str:
        """Path of the JAX operation, such as jit(train_step)/jvp(FCN8s)/conv1/add."""
        return self.attribute(r'op_name="([^"]*)"') or ""


@dataclasses.dataclass(frozen=True)
class Frame:
    """A position in the source code."""

    file: str
    function: str
    line: int


Computation = Mapping[str, Instruction]
"""Instructions by name, in the order in which they run."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A parsed module."""

    computations: Mapping[str, Computation]
    entry: str
    stacks: Mapping[int, tuple[Frame, ...]]  # innermost frame first

    def stack(self, instruction: Instruction) -> tuple[Frame, ...]:
        """Return where an instruction comes from; empty for those of the compiler."""
        number = instruction.attribute(r"\bstack_frame_id=(\d+)")
        return self.stacks.get(int(number), ()) if number else ()


def parse(text: str) -> Program:
    """Parse the text of an optimized module.

    Raises:
        ValueError: If the text has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    tables: dict[str, dict[int, str]] = {}
    entry, current, table = None, None, None
    for line in text.splitlines():
        if found := _TABLE.match(line):
            table = tables.setdefault(found[1], {})
        elif found := _COMPUTATION.match(line):
            current, table = computations.setdefault(found[2], {}), None
            entry = found[2] if found[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            instruction = _instruction(found[2], found[3], is_root=bool(found[1]))
            current[instruction.name] = instruction
        elif table is not None and line[:1].isdigit():
            number, _, value = line.partition(" ")
            table[int(number)] = value
    if entry is None:
        raise ValueError("the text is not an HLO module: it has no ENTRY computation")
    return Program(computations, entry, _stacks(tables))


def _instruction(name: str, text: str, *, is_root: bool) -> Instruction:
    type_end = _closing(text, 0) + 1 if text[0] == "(" else text.index(" ")
    opcode = _OPCODE.match(text, type_end)
    end = _closing(text, opcode.end() - 1)
    arguments = text[opcode.end() : end]
    return Instruction(
        name=name,
        opcode=opcode[1],
        shapes=tuple(
            Shape(dtype, tuple(int(n) for n in dims.split(",") if n))
            for dtype, dims in _SHAPE.findall(text[:type_end])
        ),
        operands=tuple(re.findall(r"%([^\s,()]+)", arguments)),
        arguments=arguments,
        attributes=text[end + 1 :],
        is_root=is_root,
    )


def _closing(text: str, start: int) -> int:
    """Return the position of the parenthesis that closes the one at `start`."""
    depth = 0
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if not depth:
            return position
    raise ValueError(f"unbalanced parentheses in HLO text: {text[:80]}")


def _stacks(tables: Mapping[str, Mapping[int, str]]) -> dict[int, tuple[Frame, ...]]:
    """Resolve the tables of file names, functions, locations and stack frames."""

    def name(table: str, number: int) -> str:
        return tables.get(table, {}).get(number, '""').strip('"')

    def fields(text: str) -> dict[str, int]:
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)}

    locations = {
        number: Frame(
            name("FileNames", values.get("file_name_id", 0)),
            name("FunctionNames", values.get("function_name_id", 0)),
            values.get("line", 0),
        )
        for number, text in tables.get("FileLocations", {}).items()
        for values in [fields(text)]
    }
    stacks: dict[int, tuple[Frame, ...]] = {}
    for number, text in tables.get("StackFrames", {}).items():
        values = fields(text)
        # A parent is stored as its number plus one; it is listed before its children.
        parent = stacks.get(values.get("parent_frame_id", 0) - 1, ())
        stacks[number] = (locations[values["file_location_id"]], *parent)
    return stacks
