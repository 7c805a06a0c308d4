"""FLOPs and dtypes of the convolutions and matrix products in a program."""

import math
import re

from tempseg_jax.aot.hlo import Computation, Instruction, Program, Shape

LIBRARY_CALL = re.compile(r'custom_call_target="__(cudnn\$conv|cublas)')
_CONVOLUTION = re.compile(r'custom_call_target="__cudnn\$conv(\w*)"')
_DIMENSIONS = r"dim_labels=\w+_(\w+)->\w+"
_CONTRACTED = r'lhs_contracting_dim(?:ension)?s"?[=:][\[{]([^\]}]*)[\]}]'


def product_flops(
    program: Program, instruction: Instruction, within: Computation
) -> int:
    """Return the FLOPs of an instruction's products: two per multiply-add.

    A fusion has those of the products in it. Products with zero padding count. All
    other arithmetic does not: on a GPU it is bound by memory.

    Args:
        program: The program.
        instruction: One of its instructions.
        within: The computation that has the instruction.
    """
    shapes = _operand_shapes(instruction, within)
    match instruction.opcode:
        case "dot":
            return _matrix_product(instruction, shapes[0])
        case "convolution":
            return _convolution(instruction, shapes[1], instruction.shapes[0])
        case "fusion":
            return sum(
                product_flops(program, inner, program.computations[name])
                for name in instruction.called
                for inner in program.computations[name].values()
            )
    if not is_library_call(instruction):
        return 0
    convolution = _CONVOLUTION.search(instruction.attributes)
    if convolution is None:
        return _matrix_product(instruction, shapes[0])
    # The labels are those of the forward pass in each of the three forms.
    match convolution[1]:
        case "BackwardInput":
            return _convolution(instruction, shapes[1], shapes[0])
        case "BackwardFilter":
            return _convolution(instruction, instruction.shapes[0], shapes[1])
    return _convolution(instruction, shapes[1], instruction.shapes[0])


def is_library_call(instruction: Instruction) -> bool:
    """Whether cuDNN or cuBLAS computes the instruction."""
    return bool(LIBRARY_CALL.search(instruction.attributes))


def product_dtype(
    program: Program, instruction: Instruction, within: Computation
) -> str | None:
    """Return the dtype in which an instruction multiplies, such as bf16."""
    if instruction.opcode in ("dot", "convolution") or is_library_call(instruction):
        return _operand_shapes(instruction, within)[0].dtype
    if instruction.opcode == "fusion":
        for name in instruction.called:
            for inner in program.computations[name].values():
                if dtype := product_dtype(program, inner, program.computations[name]):
                    return dtype
    return None


def convolution_of(instruction: Instruction) -> str | None:
    """Return the form of a convolution: Forward, BackwardInput, or BackwardFilter."""
    found = _CONVOLUTION.search(instruction.attributes)
    if found:
        return found[1]
    return "Forward" if instruction.opcode == "convolution" else None


def _operand_shapes(instruction: Instruction, within: Computation) -> list[Shape]:
    return [
        within[name].shapes[0] for name in instruction.operands if within[name].shapes
    ]


def _matrix_product(instruction: Instruction, left: Shape) -> int:
    contracted = instruction.attribute(_CONTRACTED) or ""
    axes = [int(axis) for axis in re.findall(r"\d+", contracted)]
    outputs = math.prod(instruction.shapes[0].dims)
    return 2 * outputs * math.prod(left.dims[axis] for axis in axes)


def _convolution(instruction: Instruction, kernel: Shape, output: Shape) -> int:
    labels = instruction.attribute(_DIMENSIONS)
    channels = kernel.dims[labels.index("o")]
    return 2 * math.prod(output.dims) * math.prod(kernel.dims) // channels
