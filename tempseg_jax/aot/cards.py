"""GPUs by name: the hardware figures that XLA compiles for, and peak speeds.

Sources: NVIDIA's white papers and data sheets (Turing, Ampere, Ada, Hopper); for the
A100, H100 and H200 also the target configurations in the sources of XLA. Memory is what
CUDA reports, which is less than the nominal size; for the H200 it is the total that
nvidia-smi shows (driver 580), of which CUDA reports a little less.
"""

import dataclasses
from collections.abc import Mapping

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU as XLA's compiler sees it, and the peak speeds of its data sheet."""

    description: str
    compute_capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    fpus_per_core: int
    threads_per_core: int
    clock_ghz: float  # boost
    memory: int  # bytes
    bandwidth: float  # bytes per second
    l2_cache: int  # bytes
    shared_memory_per_core: int  # bytes
    shared_memory_per_block: int  # bytes, after opting in
    tflops: Mapping[str, float]  # dense products with float32 sums, by dtype
    driver_name: str = ""  # if it is not the description

    def check_precision(self, precision: str) -> None:
        """Refuse a compute dtype that the card cannot compute.

        Raises:
            ValueError: If the card has no products of this dtype.
        """
        if precision not in self.tflops:
            raise ValueError(
                f"precision={precision!r}: {self.description} (compute capability "
                f"{'.'.join(map(str, self.compute_capability))}) has no {precision} "
                f"products; use one of {', '.join(self.tflops)}, such as float16"
            )


_KIB, _MIB = 2**10, 2**20

# float32 products of cuBLAS and cuDNN use TF32 by default in JAX, where a card has it.
CARDS: dict[str, Card] = {
    "rtx2070s": Card(
        "NVIDIA GeForce RTX 2070 SUPER",
        compute_capability=(7, 5),
        cores=40,
        fpus_per_core=64,
        threads_per_core=1024,
        clock_ghz=1.77,
        memory=8_366_784_512,
        bandwidth=448e9,
        l2_cache=4 * _MIB,
        shared_memory_per_core=64 * _KIB,
        shared_memory_per_block=64 * _KIB,
        tflops={"float16": 36.3, "float32": 9.06},
    ),
    "rtx4060": Card(
        "NVIDIA GeForce RTX 4060",
        compute_capability=(8, 9),
        cores=24,
        fpus_per_core=128,
        threads_per_core=1536,
        clock_ghz=2.46,
        memory=int(7.62 * GIB),
        bandwidth=272e9,
        l2_cache=24 * _MIB,
        shared_memory_per_core=100 * _KIB,
        shared_memory_per_block=99 * _KIB,
        tflops={"bfloat16": 30.2, "float16": 30.2, "float32": 15.1},
    ),
    "rtx4090": Card(
        "NVIDIA GeForce RTX 4090",
        compute_capability=(8, 9),
        cores=128,
        fpus_per_core=128,
        threads_per_core=1536,
        clock_ghz=2.52,
        memory=int(23.64 * GIB),
        bandwidth=1008e9,
        l2_cache=72 * _MIB,
        shared_memory_per_core=100 * _KIB,
        shared_memory_per_block=99 * _KIB,
        tflops={"bfloat16": 165.2, "float16": 165.2, "float32": 82.6},
    ),
    "a100-40": Card(
        "NVIDIA A100-SXM4-40GB",
        compute_capability=(8, 0),
        cores=108,
        fpus_per_core=64,
        threads_per_core=2048,
        clock_ghz=1.41,
        memory=42_331_013_120,
        bandwidth=1555.2e9,
        l2_cache=40 * _MIB,
        shared_memory_per_core=164 * _KIB,
        shared_memory_per_block=163 * _KIB,
        tflops={"bfloat16": 312.0, "float16": 312.0, "float32": 156.0},
    ),
    "h100": Card(
        "NVIDIA H100 80GB HBM3",
        compute_capability=(9, 0),
        cores=132,
        fpus_per_core=128,
        threads_per_core=2048,
        clock_ghz=1.98,
        memory=84_942_979_072,
        bandwidth=3352.32e9,
        l2_cache=50 * _MIB,
        shared_memory_per_core=228 * _KIB,
        shared_memory_per_block=227 * _KIB,
        tflops={"bfloat16": 989.4, "float16": 989.4, "float32": 494.7},
    ),
}
CARDS["a100-80"] = dataclasses.replace(
    CARDS["a100-40"],
    description="NVIDIA A100-SXM4-80GB",
    memory=85_100_068_864,
    bandwidth=2039.04e9,
)
CARDS["h200"] = dataclasses.replace(
    CARDS["h100"],
    description="NVIDIA H200 141GB HBM3e",
    driver_name="NVIDIA H200",
    memory=143_771 * _MIB,
    bandwidth=4800e9,
)


def key_of(device_name: str) -> str | None:
    """Return the key in `CARDS` of a GPU by the name that its driver gives it.

    None if no card has this name: others of the same chip have other speeds.
    """
    names = {card.driver_name or card.description: key for key, card in CARDS.items()}
    return names.get(device_name)


def target_config(card: Card) -> str:
    """Return the card as the text of XLA's `GpuTargetConfigProto`."""
    major, minor = card.compute_capability
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {48 * _KIB}
  shared_memory_per_core: {card.shared_memory_per_core}
  threads_per_core_limit: {card.threads_per_core}
  core_count: {card.cores}
  fpus_per_core: {card.fpus_per_core}
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: {2**16 - 1}
  block_dim_limit_z: {2**16 - 1}
  memory_bandwidth: {int(card.bandwidth)}
  l2_cache_size: {card.l2_cache}
  clock_rate_ghz: {card.clock_ghz}
  device_memory_size: {card.memory}
  shared_memory_per_block_optin: {card.shared_memory_per_block}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: {2**16}
  registers_per_block_limit: {2**16}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{card.description}"
"""
