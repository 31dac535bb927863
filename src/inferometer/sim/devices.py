"""Devices as data: what their makers state, and the few constants that turn peaks into times.

Stated (`peak_flops` dense bf16, `bandwidth`, `memory_bytes`, `host_link`): the makers' data sheets, named in `source`.
Prices are one public on-demand list price per device and hour, with the month in which it stood (`price_note`); they are
for comparison, not billing, and a device without one has no price rather than a guess.

`Kernels` are fits by this project of public kernel profiles (the method and errors: docs/fidelity.md; those of the two
RTX cards are guesses in part, and devices without profiles borrow from a relative): how a GEMM,
attention, an elementwise kernel and a collective take time, a handful of numbers per device for all models:
    gemm        t0 + (tc^k + tb^k)^(1/k), tc = FLOP / (peak·flops_eff), tb = bytes / (bandwidth·bw_eff)
    prefill     t0 + pnorm_k( flops·(c·kv + beta·c²)·(1 + fill·SMs/tiles), bytes of Q, K, V, O )
    decode      t0 + KV bytes / (bandwidth·bw_eff) + Q and O bytes / (bandwidth·qo_eff)
    all-reduce  alpha + bytes / rate, per call, by number of devices
Profiles: microsoft/vidur (MIT), ai-dynamo/aiconfigurator (Apache-2.0), casys-kaist/LLMServingSim (MIT: rtx4090,
rtxpro6000). A device without profiles of its own borrows the
efficiencies of a relative, which `borrowed` names: its times are a guess of the right size, and a run's manifest says so.
"""

from __future__ import annotations

from inferometer.errors import UserError
from inferometer.spec import Spec

COPY_EFFICIENCY = 0.8  # of a PCIe link's stated rate: pinned copies reach 24-26 of 32 GB/s


class Kernels(Spec, frozen=True):
    """Efficiencies (shares of a peak) and fixed times [s] of one device's kernels."""

    gemm_t0_s: float
    gemm_flops: float
    gemm_bandwidth: float
    gemm_k: float
    prefill_t0_s: float
    prefill_flops: float
    prefill_beta: float
    prefill_fill: float
    prefill_bandwidth: float
    prefill_k: float
    decode_t0_s: float
    decode_bandwidth: float
    decode_qo_bandwidth: float
    mixed_bandwidth: float = (
        0.5  # of decode attention beside a prefill: no split-KV (0.42-0.60 seen)
    )
    elementwise_t0_s: float = 2.2e-6
    elementwise_bandwidth: float = 0.45


class Device(Spec, frozen=True):
    """One accelerator. Rates per second; `memory_gib` as marketed."""

    name: str
    source: str
    memory_gib: float
    bandwidth: float
    peak_flops: float
    sms: int
    kernels: Kernels
    all_reduce: tuple[tuple[int, float, float], ...] = ()  # (devices, alpha [s], bytes per second)
    hop: tuple[float, float] = (14e-6, 289e9)  # pipeline send/receive in a node
    host_link: float = 32e9  # one way, to or from the host's memory, as stated (PCIe 4 x16)
    borrowed: str = ""
    price_per_hour: float | None = None
    price_note: str = ""

    @property
    def host_bandwidth(self) -> float:
        """What a copy between pinned host memory and the device reaches, in bytes per second."""
        return self.host_link * COPY_EFFICIENCY

    @property
    def memory_bytes(self) -> float:
        """The memory, a GB read as 2^30 bytes (within 2 % of what drivers report)."""
        return self.memory_gib * 2**30

    def link(self, devices: int) -> tuple[float, float]:
        """(alpha, rate) of an all-reduce among `devices`; the next larger group's where that one is unknown."""
        if not self.all_reduce:
            return (50e-6, 20e9)  # PCIe: a guess of the right size
        large = [link for link in self.all_reduce if link[0] >= devices]
        _, alpha, rate = (large or self.all_reduce[-1:])[0]
        return alpha, rate


_A100 = Kernels(
    gemm_t0_s=5.721e-6, gemm_flops=0.7376, gemm_bandwidth=0.8359, gemm_k=1.4216,
    prefill_t0_s=9.144e-6, prefill_flops=0.7247, prefill_beta=0.612, prefill_fill=0.8069,
    prefill_bandwidth=0.4036, prefill_k=1.1049,
    decode_t0_s=18.58e-6, decode_bandwidth=0.7221, decode_qo_bandwidth=0.1403,
)  # fmt: skip
_A40 = Kernels(
    gemm_t0_s=3.6965e-6, gemm_flops=0.7779, gemm_bandwidth=0.7942, gemm_k=1.6346,
    prefill_t0_s=9.144e-6, prefill_flops=0.7247, prefill_beta=0.612, prefill_fill=0.8069,
    prefill_bandwidth=0.4036, prefill_k=1.1049,
    decode_t0_s=18.58e-6, decode_bandwidth=0.7221, decode_qo_bandwidth=0.1403,
    elementwise_t0_s=1.7e-6, elementwise_bandwidth=0.73,
)  # fmt: skip
_H100 = Kernels(
    gemm_t0_s=3.5619e-6, gemm_flops=0.814, gemm_bandwidth=0.8686, gemm_k=2.6518,
    prefill_t0_s=12.728e-6, prefill_flops=1.0477, prefill_beta=0.7303, prefill_fill=0.3905,
    prefill_bandwidth=0.4522, prefill_k=1.0284,
    decode_t0_s=11.993e-6, decode_bandwidth=0.8955, decode_qo_bandwidth=0.06247,
)  # fmt: skip
_H200 = Kernels(
    gemm_t0_s=3.8635e-6, gemm_flops=0.804, gemm_bandwidth=0.8335, gemm_k=2.9809,
    prefill_t0_s=12.612e-6, prefill_flops=1.044, prefill_beta=0.7287, prefill_fill=0.3727,
    prefill_bandwidth=0.3338, prefill_k=1.0,
    decode_t0_s=12.224e-6, decode_bandwidth=0.8649, decode_qo_bandwidth=0.03714,
)  # fmt: skip
_B200 = Kernels(
    gemm_t0_s=3.28e-6, gemm_flops=0.7179, gemm_bandwidth=0.7737, gemm_k=2.3734,
    prefill_t0_s=11.129e-6, prefill_flops=0.7151, prefill_beta=0.5933, prefill_fill=2.3209,
    prefill_bandwidth=0.258, prefill_k=1.3911,
    decode_t0_s=9.124e-6, decode_bandwidth=0.8663, decode_qo_bandwidth=0.1277,
)  # fmt: skip
_L40S = Kernels(
    gemm_t0_s=1.3247e-6, gemm_flops=0.6427, gemm_bandwidth=0.812, gemm_k=2.204,
    prefill_t0_s=6.222e-6, prefill_flops=0.8277, prefill_beta=0.745, prefill_fill=0.334,
    prefill_bandwidth=1.4515, prefill_k=1.0,
    decode_t0_s=12.767e-6, decode_bandwidth=0.8518, decode_qo_bandwidth=10.0,
)  # fmt: skip
_RTX4090 = Kernels(
    gemm_t0_s=5.74e-6, gemm_flops=0.97, gemm_bandwidth=0.938, gemm_k=2.25,
    prefill_t0_s=7.1e-6, prefill_flops=0.63, prefill_beta=0.61, prefill_fill=0.3,
    prefill_bandwidth=1.0, prefill_k=1.0,
    decode_t0_s=7.1e-6, decode_bandwidth=0.9, decode_qo_bandwidth=1.0, mixed_bandwidth=0.415,
    elementwise_t0_s=2.0e-6, elementwise_bandwidth=0.9,
)  # fmt: skip
_RTXPRO6000 = Kernels(
    gemm_t0_s=6.6e-6, gemm_flops=0.80, gemm_bandwidth=1.014, gemm_k=1.51,
    prefill_t0_s=7.7e-6, prefill_flops=0.4, prefill_beta=0.61, prefill_fill=0.3,
    prefill_bandwidth=1.0, prefill_k=1.0,
    decode_t0_s=7.7e-6, decode_bandwidth=0.9, decode_qo_bandwidth=1.0, mixed_bandwidth=0.492,
    elementwise_t0_s=2.2e-6, elementwise_bandwidth=0.9,
)  # fmt: skip
_CPU = Kernels(
    gemm_t0_s=5e-6, gemm_flops=0.5, gemm_bandwidth=0.6, gemm_k=2.0,
    prefill_t0_s=5e-6, prefill_flops=0.3, prefill_beta=1.0, prefill_fill=0.0,
    prefill_bandwidth=0.6, prefill_k=1.0,
    decode_t0_s=5e-6, decode_bandwidth=0.6, decode_qo_bandwidth=0.6, mixed_bandwidth=0.6,
)  # fmt: skip

_A100_LINKS = ((2, 45.35e-6, 172.1e9), (4, 48.2e-6, 114.9e9), (8, 49.6e-6, 89.1e9))
_H100_LINKS = ((2, 26.1e-6, 324.1e9), (4, 31.3e-6, 253.1e9), (8, 30.2e-6, 196.7e9))
_CLOUD = "CoreWeave, on demand, an eighth of an 8-GPU node, February 2026"
_OLD = "CoreWeave, on demand, February 2024 (as microsoft/vidur quotes it)"
_SERVERLESS = "RunPod, serverless flex workers, early 2026 (docs.runpod.io/serverless/pricing)"
_MODAL = "Modal, serverless, May 2026"
_LAMBDA = "Lambda, on demand, May 2026"
_VULTR = "Vultr, on demand, May 2026"

# name, source, GiB, bytes/s, dense bf16 FLOP/s, SMs
# fmt: off
_ALL = (
    Device(name="a100", source="NVIDIA A100 80GB SXM data sheet", memory_gib=80, bandwidth=2.039e12, peak_flops=312e12,
           sms=108, kernels=_A100, all_reduce=_A100_LINKS, price_per_hour=2.70, price_note=_CLOUD),
    Device(name="a100-40gb", source="NVIDIA A100 40GB SXM data sheet", memory_gib=40, bandwidth=1.555e12, peak_flops=312e12,
           sms=108, kernels=_A100, all_reduce=_A100_LINKS, borrowed="a100", price_per_hour=1.48, price_note=_LAMBDA),
    Device(name="h100", source="NVIDIA H100 SXM data sheet", memory_gib=80, bandwidth=3.35e12, peak_flops=989e12,
           sms=132, kernels=_H100, all_reduce=_H100_LINKS, hop=(7.7e-6, 358.8e9), host_link=64e9,
           price_per_hour=6.155, price_note=_CLOUD),
    Device(name="h200", source="NVIDIA H200 SXM data sheet", memory_gib=141, bandwidth=4.8e12, peak_flops=989e12,
           sms=132, kernels=_H200, all_reduce=_H100_LINKS, hop=(7.7e-6, 358.8e9), host_link=64e9,
           price_per_hour=6.305, price_note=_CLOUD),
    Device(name="b200", source="NVIDIA B200 data sheet (DGX B200)", memory_gib=180, bandwidth=8.0e12, peak_flops=2250e12,
           sms=148, kernels=_B200, all_reduce=_H100_LINKS, hop=(7.7e-6, 358.8e9), borrowed="links: h100", host_link=64e9,
           price_per_hour=8.60, price_note=_CLOUD),
    Device(name="a40", source="NVIDIA A40 data sheet", memory_gib=48, bandwidth=696e9, peak_flops=149.7e12,
           sms=84, kernels=_A40, hop=(1.54e-6, 4.1e9), borrowed="attention: a100", price_per_hour=1.28, price_note=_OLD),
    Device(name="l4", source="NVIDIA L4 data sheet", memory_gib=24, bandwidth=300e9, peak_flops=121e12, sms=58,
           kernels=_L40S, borrowed="l40s", price_per_hour=0.7992, price_note=_MODAL),
    Device(name="l40s", source="NVIDIA L40S data sheet", memory_gib=48, bandwidth=864e9, peak_flops=362e12, sms=142,
           kernels=_L40S, price_per_hour=2.25, price_note=_CLOUD),
    Device(name="t4", source="NVIDIA T4 data sheet (fp16)", memory_gib=16, bandwidth=320e9, peak_flops=65e12, sms=40,
           kernels=_A40, borrowed="a40", host_link=16e9, price_per_hour=0.5904, price_note=_MODAL),
    Device(name="mi300x", source="AMD Instinct MI300X data sheet", memory_gib=192, bandwidth=5.3e12, peak_flops=1307e12,
           sms=304, kernels=_H100, all_reduce=_H100_LINKS, borrowed="h100", host_link=64e9,
           price_per_hour=1.85, price_note=_VULTR),
    Device(name="rtx4090", source="NVIDIA Ada whitepaper", memory_gib=24, bandwidth=1.008e12, peak_flops=165.2e12, sms=128,
           kernels=_RTX4090, borrowed="the shape of prefill attention: l40s", price_per_hour=1.116, price_note=_SERVERLESS),
    Device(name="rtxpro6000", source="NVIDIA RTX PRO 6000 Blackwell data sheet", memory_gib=96, bandwidth=1.792e12,
           peak_flops=503.8e12, sms=188, kernels=_RTXPRO6000, borrowed="the shape of prefill attention: l40s", host_link=64e9,
           price_per_hour=2.50, price_note=_CLOUD),
    Device(name="cpu", source="a server core pair with AVX-512, in order of magnitude; profile your own", memory_gib=8,
           bandwidth=15e9, peak_flops=200e9, sms=1, kernels=_CPU, borrowed="none: an assumption", host_link=15e9),
)
# fmt: on

DEVICES = {device.name: device for device in _ALL}


def device(name: str) -> Device:
    """The device of a name; a UserError that lists the known ones."""
    try:
        return DEVICES[name.lower()]
    except KeyError:
        raise UserError(
            f"no such device: {name!r}",
            where="--device",
            remedy="take one of " + ", ".join(DEVICES),
        ) from None
