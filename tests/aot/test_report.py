import dataclasses
from pathlib import Path

import pytest

from tempseg_jax.aot import hlo, kernels, report
from tempseg_jax.aot.cards import CARDS, GIB, target_config
from tempseg_jax.aot.compilation import CompiledStep

TEXT = Path(__file__).with_name("small_step.hlo").read_text()
STEP = CompiledStep(
    arguments=2 * GIB,
    outputs=2 * GIB,
    aliased=GIB,
    temporaries=3 * GIB,
    hlo=TEXT,
    triton_gemm=True,
    seconds=1.0,
)


def with_need(gib):
    return dataclasses.replace(STEP, temporaries=int((gib - 3) * GIB))


def test_the_need_counts_aliased_outputs_once():
    assert STEP.need == 6 * GIB


def test_the_description_adds_up():
    result = report.describe_step(STEP, CARDS["h100"])
    assert result["need_gib"] == 6
    assert result["kernels"] == 11 + 3 * 3  # three of them in a loop of three
    assert result["convolutions"] == {"bfloat16": 3}
    assert result["products"] == {"bfloat16": 1, "float32": 1}
    assert result["float32_products"] == ["tempseg_jax/models/ops.py:112"]
    assert result["all_reduced_mb"] == {"bfloat16": 0.001}  # 16 * 3 * 3 * 4 * 2 bytes


def test_the_roofline_is_the_longer_of_arithmetic_and_memory_of_each_kernel():
    launched = {k.instruction.name: k for k in kernels.list_kernels(hlo.parse(TEXT))}
    card = dataclasses.replace(
        CARDS["h100"], bandwidth=1e3, tflops={"bfloat16": 1e-9, "float32": 1e-10}
    )  # 1000 bytes, 1000 FLOPs in bfloat16 and 100 in float32 a second

    def seconds(*names):
        return report.roofline_seconds([launched[x] for x in names], card)

    assert seconds("conv") == pytest.approx(147.456)
    assert seconds("copy.1") == pytest.approx(4.608)
    assert seconds("gemm_fusion_dot") == pytest.approx(6.4)  # 640 FLOPs in float32
    assert seconds("rows.2") == pytest.approx(3 * 0.404)  # in a loop
    assert seconds("conv", "copy.1") == pytest.approx(147.456 + 4.608)


@pytest.mark.parametrize(
    ("need", "answer"), [(3, "yes"), (4.4, "unknown"), (5.8, "unknown"), (5.9, "no")]
)
def test_a_step_fits_if_enough_is_left_for_workspaces(need, answer):
    card = CARDS["rtx2070s"]  # 75 % of 7.79 GiB are 5.84; less 1.5, 4.34
    assert report.fits(with_need(need), card) == answer


def test_the_largest_batch_leaves_room_for_workspaces():
    card = dataclasses.replace(CARDS["h100"], memory=10 * GIB)
    needs = {8: 2 * GIB, 16: 3 * GIB}  # 1 GiB, and an eighth for each image
    # 7.5 - 1.5 - 1 GiB are 40 images.
    assert report.largest_batch(needs, card, multiple=1) == 40
    assert report.largest_batch(needs, card, multiple=16) == 32
    small = dataclasses.replace(card, memory=3 * GIB)
    assert report.largest_batch(needs, small, multiple=1) == 0


def test_turing_has_no_bfloat16_and_the_message_offers_float16():
    CARDS["rtx2070s"].check_precision("float16")
    with pytest.raises(ValueError, match=r"SUPER .*7\.5.* no bfloat16.*float16"):
        CARDS["rtx2070s"].check_precision("bfloat16")


@pytest.mark.parametrize("name", CARDS)
def test_the_target_of_a_card_names_its_hardware(name):
    card = CARDS[name]
    text = target_config(card)
    assert f"device_memory_size: {card.memory}\n" in text
    assert f"memory_bandwidth: {card.bandwidth:.0f}\n" in text
    assert "driver_version" not in text
    assert text.count("{") == text.count("}")
    # Balance of a card: FLOPs in 16 bits for each byte that it can move.
    assert 50 < 1e12 * card.tflops["float16"] / card.bandwidth < 350
