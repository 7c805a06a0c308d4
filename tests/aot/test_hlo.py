from pathlib import Path

import pytest

from tempseg_jax.aot import hlo
from tempseg_jax.aot.hlo import Frame, Shape

TEXT = Path(__file__).with_name("small_step.hlo").read_text()


@pytest.fixture(scope="module")
def program():
    return hlo.parse(TEXT)


def test_the_entry_computation_has_its_instructions_in_order(program):
    entry = program.computations[program.entry]
    names = list(entry)
    assert program.entry == "main.1"
    assert names.index("conv") < names.index("y") < names.index("dw")
    assert len(names) == 26  # the lines of ENTRY in the file
    assert [x.name for x in entry.values() if x.is_root] == ["tuple.1"]


def test_an_instruction_has_opcode_shapes_and_operands(program):
    conv = program.computations["main.1"]["conv"]
    assert conv.opcode == "custom-call"
    assert conv.shapes == (Shape("bf16", (2, 8, 8, 16)), Shape("u8", (64,)))
    assert conv.operands == ("image", "wrapped_convert")
    assert conv.op_name.endswith("conv1/conv_general_dilated")


def test_a_result_of_more_than_five_arrays_is_parsed(program):
    # XLA writes the comment /*index=5*/ into such a type.
    update = program.computations["main.1"]["update"]
    assert update.opcode == "fusion"
    assert update.shapes == (Shape("f32", (16, 3, 3, 4)), *[Shape("f32", (2,))] * 5)
    assert update.operands == ("kernel", "all-reduce-done")


def test_called_computations_are_those_of_fusions_and_loops(program):
    entry = program.computations["main.1"]
    assert entry["norm"].called == ("moments",)
    assert set(entry["while"].called) == {"body", "condition"}
    assert entry["image"].called == ()


def test_the_stack_of_an_instruction_begins_with_the_innermost_frame(program):
    entry = program.computations["main.1"]
    assert program.stack(entry["conv"]) == (
        Frame("/src/tempseg_jax/models/ops.py", "SameConv.__call__", 112),
        Frame("/src/tempseg_jax/steps.py", "train_step", 55),
        Frame("/src/run.py", "<module>", 9),
    )
    assert program.stack(entry["copy.1"]) == ()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (Shape("bf16", (2, 3)), 12),
        (Shape("f32", ()), 4),
        (Shape("pred", (5,)), 5),
        (Shape("u8", (0,)), 0),
        (Shape("f8e4m3fn", (7,)), 7),
        (Shape("s64", (2,)), 16),
    ],
)
def test_the_size_of_a_shape_in_bytes(shape, size):
    assert shape.bytes == size


def test_text_that_is_not_hlo_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo.parse("module @jit_train_step {\n}\n")
