from pathlib import Path

import pytest

from tempseg_jax import optim, steps
from tempseg_jax.aot import hlo, kernels, liveness
from tempseg_jax.aot.kernels import Kind
from tempseg_jax.aot.products import convolution_of
from tempseg_jax.models.batch_norm import BatchNorm
from tempseg_jax.objective import losses

TEXT = Path(__file__).with_name("small_step.hlo").read_text()

# Counted by hand from the file; sizes of arrays in bytes:
IMAGE = 2 * 8 * 8 * 4 * 2
KERNEL = 16 * 3 * 3 * 4 * 4
KERNEL_16_BIT = KERNEL // 2
Y = 2 * 8 * 8 * 16 * 2
CONVOLUTION = 2 * (2 * 8 * 8 * 16) * (3 * 3 * 4)  # FLOPs: outputs times kernel


@pytest.fixture(scope="module")
def program():
    return hlo.parse(TEXT)


@pytest.fixture(scope="module")
def by_name(program):
    return {k.instruction.name: k for k in kernels.list_kernels(program)}


def test_parameters_bitcasts_and_tuples_are_no_kernels(by_name):
    assert list(by_name) == [
        *("wrapped_convert", "conv", "norm", "cross_entropy", "dx", "dw", "gemm"),
        *(
            "gemm_fusion_dot",
            "all-reduce-start",
            "update",
            "go",
            "next",
            "rows.2",
            "copy.1",
        ),
    ]


@pytest.mark.parametrize(
    ("name", "size"),
    {
        "wrapped_convert": KERNEL + KERNEL_16_BIT,
        "conv": IMAGE + KERNEL_16_BIT + Y,  # without 64 bytes of workspace
        "norm": Y + 2 * 16 * 4,
        "cross_entropy": Y // 2 + 4,  # reads a slice with one of two images
        "dx": Y + KERNEL_16_BIT + IMAGE,
        "dw": IMAGE + Y + KERNEL_16_BIT,
        "gemm": Y + 16 * 4 * 4 + 128 * 4 * 4,  # without workspace
        "gemm_fusion_dot": (16 * 4 + 4 * 5 + 16 * 5) * 4,
        "all-reduce-start": 2 * KERNEL_16_BIT,  # its result repeats the operand
        "update": KERNEL + KERNEL_16_BIT + KERNEL + 5 * 8,
        "rows.2": 4 + 100 * 4,  # reads an index, writes one of three rows in place
        "copy.1": 2 * KERNEL,
    }.items(),
)
def test_bytes_are_operands_and_results_once(name, size, by_name):
    assert by_name[name].bytes == size


@pytest.mark.parametrize(
    ("name", "flops", "dtype"),
    [
        ("conv", CONVOLUTION, "bf16"),
        ("dx", CONVOLUTION, "bf16"),
        ("dw", CONVOLUTION, "bf16"),
        ("gemm", 2 * 128 * 16 * 4, "bf16"),
        ("gemm_fusion_dot", 2 * 16 * 4 * 5, "f32"),
        ("norm", 0, None),
        ("copy.1", 0, None),
    ],
)
def test_flops_are_those_of_the_products(name, flops, dtype, by_name):
    assert by_name[name].flops == flops
    assert by_name[name].dtype == dtype


def test_the_body_of_a_loop_counts_as_often_as_it_runs(by_name):
    assert by_name["rows.2"].launches == by_name["next"].launches == 3
    assert by_name["conv"].launches == 1


@pytest.mark.parametrize(
    ("kind", "names"),
    {
        Kind.PRODUCTS: {"conv", "dx", "dw", "gemm", "gemm_fusion_dot"},
        # The update has no stack of its own, but an instruction in the fusion has.
        Kind.OPTIMIZER: {"wrapped_convert", "update", "copy.1"},
        Kind.BATCH_NORM: {"norm"},
        Kind.LOSS: {"cross_entropy"},
        Kind.COLLECTIVES: {"all-reduce-start"},
        Kind.ELEMENTWISE: {"go", "next", "rows.2"},
    }.items(),
)
def test_kernels_are_sorted_by_what_they_are_for(kind, names, by_name):
    assert {name for name, k in by_name.items() if k.kind is kind} == names


@pytest.mark.parametrize(
    ("innermost", "kind"),
    [
        ("tempseg_jax/objective/adversaries.py", Kind.LOSS),
        ("tempseg_jax/models/discriminators.py", Kind.ELEMENTWISE),
    ],
)
def test_a_network_that_a_loss_calls_is_not_part_of_the_loss(
    innermost, kind, program, by_name, monkeypatch
):
    frames = ("flax/linen/x.py", innermost, "tempseg_jax/objective/adversaries.py")
    stack = tuple(hlo.Frame(file=x, function="f", line=1) for x in frames)
    monkeypatch.setattr(hlo.Program, "stack", lambda self, instruction: stack)
    instruction = by_name["cross_entropy"].instruction
    assert kernels._kind(program, instruction, flops=0) is kind


def test_the_form_of_a_convolution_is_known(by_name):
    forms = {name: convolution_of(k.instruction) for name, k in by_name.items()}
    assert {name: form for name, form in forms.items() if form} == {
        "conv": "Forward",
        "dx": "BackwardInput",
        "dw": "BackwardFilter",
    }


def test_the_source_of_a_kernel_is_the_innermost_line_of_this_package(by_name):
    assert by_name["conv"].source == "tempseg_jax/models/ops.py:112"
    assert by_name["norm"].source == "tempseg_jax/steps.py:55"  # called Flax from there
    assert by_name["gemm"].source == "gemm"


def test_buffers_are_live_from_their_instruction_to_their_last_use(program):
    # While gemm runs: y, which it reads through a bitcast; dw, which all-reduce reads
    # later; its result and its workspace. The copy of the kernel is read no more, and
    # arguments and results are not temporary.
    assert [x.shape.bytes for x in liveness.live_at_peak(program)] == sorted(
        [Y, KERNEL_16_BIT, 128 * 4 * 4, 4096], reverse=True
    )
    assert liveness.live_at_peak(program)[0].source == "tempseg_jax/models/ops.py:112"


NESTED = """HloModule nested, is_scheduled=true

%small (a: f32[10]) -> f32[10] {
  %a = f32[10]{0} parameter(0)
  ROOT %small_copy = f32[10]{0} copy(%a)
}

%big (b: f32[10]) -> f32[10] {
  %b = f32[10]{0} parameter(0)
  %twice = f32[20]{0} concatenate(%b, %b), dimensions={0}
  ROOT %half = f32[10]{0} slice(%twice), slice={[0:10]}
}

ENTRY %main (x: f32[10], i: s32[]) -> (f32[10], f32[10]) {
  %x = f32[10]{0} parameter(0)
  %i = s32[] parameter(1)
  %branch = f32[10]{0} conditional(%i, %x, %x), branch_computations={%small, %big}
  %called = f32[10]{0} call(%branch), to_apply=%small
  ROOT %results = (f32[10]{0}, f32[10]{0}) tuple(%called, %branch)
}
"""


def test_of_a_conditional_the_branch_that_moves_most_bytes_counts():
    listed = kernels.list_kernels(hlo.parse(NESTED))
    assert {k.instruction.name: k.bytes for k in listed} == {
        "twice": 40 + 80,
        "half": 40 + 40,  # reads the part that it returns
        "small_copy": 40 + 40,
    }


def test_buffers_in_a_called_computation_are_live_while_it_runs():
    live = liveness.live_at_peak(hlo.parse(NESTED))
    assert [x.shape.bytes for x in live] == [80]  # results are in the caller's memory


def test_the_code_that_kinds_are_told_by_has_these_names():
    assert optim.update_player and optim.gradient_metrics and steps.apply_updates
    assert Path(losses.__file__).match("tempseg_jax/objective/losses.py")
    assert kernels._BATCH_NORM.search(BatchNorm.__call__.__qualname__)
