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

import msgspec

from inferometer.errors import UserError
from inferometer.spec import Spec

COPY_EFFICIENCY = 0.8  # of a PCIe link's stated rate: pinned copies reach 24-26 of 32 GB/s


class Gemm(Spec, frozen=True):
    """t0 + (tc^k + tb^k)^(1/k), tc = FLOP / (dense bf16 peak · flops), tb = bytes / (bandwidth · bandwidth share).

    `flops` may exceed 1 for narrower numbers: it is a share of the bf16 peak for all of them.
    """

    t0_s: float
    flops: float
    bandwidth: float
    k: float


class Waves(Spec, frozen=True):
    """FlashAttention-2 over prefills and decodes together: blocks of 64 query rows of a head, in waves over the SMs.

    `flops`: share of the dense bf16 peak, the padding of a block included; `t0_s`: of the kernel.
    """

    t0_s: float
    flops: float


class Kernels(Spec, frozen=True):
    """Efficiencies (shares of a peak) and fixed times [s] of one device's kernels.

    `fp8`, `fp4`: (flops, k) of GEMMs of such numbers, None where the device has no kernels for them. Their fixed time and
    share of the bandwidth are `gemm`'s: profiles of single kernels hold a quantisation of the input, which engines do
    within the kernel before. `waves`: of one attention kernel for prefills and decodes
    together (None: `prefill_*`, and for decodes beside them a kernel of its own, at `mixed_bandwidth`).
    """

    gemm: Gemm
    prefill_t0_s: float
    prefill_flops: float
    prefill_beta: float
    prefill_fill: float
    prefill_bandwidth: float
    prefill_k: float
    decode_t0_s: float
    decode_bandwidth: float
    decode_qo_bandwidth: float
    fp8: tuple[float, float] | None = None
    fp4: tuple[float, float] | None = None
    waves: Waves | None = None
    mixed_bandwidth: float = 0.5  # no split over the context beside a prefill (0.42-0.60 seen)
    elementwise_t0_s: float = 2.2e-6
    elementwise_bandwidth: float = 0.45

    def gemm_of(self, precision: str) -> Gemm:
        """The GEMM of weights of that precision; bf16's where there is none: they are widened as they are read."""
        narrow = {"fp8": self.fp8, "fp4": self.fp4}.get(precision)
        if narrow is None:
            return self.gemm
        flops, k = narrow
        return msgspec.structs.replace(self.gemm, flops=flops, k=k)


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
    gemm=Gemm(t0_s=5.721e-6, flops=0.7376, bandwidth=0.8359, k=1.4216),
    prefill_t0_s=9.144e-6, prefill_flops=0.7247, prefill_beta=0.612, prefill_fill=0.8069,
    prefill_bandwidth=0.4036, prefill_k=1.1049,
    decode_t0_s=18.58e-6, decode_bandwidth=0.7221, decode_qo_bandwidth=0.1403,
)  # fmt: skip
_A40 = Kernels(
    gemm=Gemm(t0_s=3.6965e-6, flops=0.7779, bandwidth=0.7942, k=1.6346),
    prefill_t0_s=9.144e-6, prefill_flops=0.7247, prefill_beta=0.612, prefill_fill=0.8069,
    prefill_bandwidth=0.4036, prefill_k=1.1049,
    decode_t0_s=18.58e-6, decode_bandwidth=0.7221, decode_qo_bandwidth=0.1403,
    elementwise_t0_s=1.7e-6, elementwise_bandwidth=0.73,
)  # fmt: skip
_H100 = Kernels(
    gemm=Gemm(t0_s=3.5619e-6, flops=0.814, bandwidth=0.8686, k=2.6518),
    prefill_t0_s=12.728e-6, prefill_flops=1.0477, prefill_beta=0.7303, prefill_fill=0.3905,
    prefill_bandwidth=0.4522, prefill_k=1.0284,
    decode_t0_s=11.993e-6, decode_bandwidth=0.8955, decode_qo_bandwidth=0.06247,
    fp8=(1.05, 1.35),
)  # fmt: skip
_H200 = Kernels(
    gemm=Gemm(t0_s=3.8635e-6, flops=0.804, bandwidth=0.8335, k=2.9809),
    prefill_t0_s=12.612e-6, prefill_flops=1.044, prefill_beta=0.7287, prefill_fill=0.3727,
    prefill_bandwidth=0.3338, prefill_k=1.0,
    decode_t0_s=12.224e-6, decode_bandwidth=0.8649, decode_qo_bandwidth=0.03714,
    fp8=(1.206, 1.01),
)  # fmt: skip
_B200 = Kernels(
    gemm=Gemm(t0_s=3.28e-6, flops=0.7179, bandwidth=0.7737, k=2.3734),
    prefill_t0_s=11.129e-6, prefill_flops=0.7151, prefill_beta=0.5933, prefill_fill=2.3209,
    prefill_bandwidth=0.258, prefill_k=1.3911,
    decode_t0_s=9.124e-6, decode_bandwidth=0.8663, decode_qo_bandwidth=0.1277,
    fp8=(1.018, 1.23), fp4=(1.852, 1.26),
)  # fmt: skip
_B300 = msgspec.structs.replace(
    _B200, gemm=Gemm(t0_s=3.36e-6, flops=0.792, bandwidth=0.778, k=2.5),
    fp8=(1.312, 1.18), fp4=(1.952, 1.35),
)  # fmt: skip
_GB200 = msgspec.structs.replace(
    _B200, gemm=Gemm(t0_s=3.7e-6, flops=0.716, bandwidth=0.815, k=2.31),
    fp8=(1.008, 1.24), fp4=(1.696, 1.45),
)  # fmt: skip
_GB300 = msgspec.structs.replace(
    _B200, gemm=Gemm(t0_s=3.5e-6, flops=0.797, bandwidth=0.798, k=2.17),
    fp8=(1.182, 1.18), fp4=(1.952, 1.32),
)  # fmt: skip
_L40S = Kernels(
    gemm=Gemm(t0_s=1.3247e-6, flops=0.6427, bandwidth=0.812, k=2.204),
    prefill_t0_s=6.222e-6, prefill_flops=0.8277, prefill_beta=0.745, prefill_fill=0.334,
    prefill_bandwidth=1.4515, prefill_k=1.0,
    decode_t0_s=12.767e-6, decode_bandwidth=0.8518, decode_qo_bandwidth=10.0,
    fp8=(0.822, 2.06),
)  # fmt: skip
_RTX4090 = Kernels(
    gemm=Gemm(t0_s=5.97e-6, flops=0.966, bandwidth=0.935, k=2.42),
    prefill_t0_s=5.65e-6, prefill_flops=0.831, prefill_beta=0.5, prefill_fill=0.154,
    prefill_bandwidth=0.4385, prefill_k=1.0,
    decode_t0_s=12.2e-6, decode_bandwidth=0.904, decode_qo_bandwidth=0.0816,
    waves=Waves(t0_s=2.75e-6, flops=0.81),
    elementwise_t0_s=2.4e-6, elementwise_bandwidth=1.1,
)  # fmt: skip
_RTXPRO6000 = Kernels(
    gemm=Gemm(t0_s=3.59e-6, flops=0.788, bandwidth=0.954, k=1.455),
    prefill_t0_s=4.81e-6, prefill_flops=0.668, prefill_beta=0.596, prefill_fill=0.455,
    prefill_bandwidth=0.5165, prefill_k=1.0,
    decode_t0_s=12.65e-6, decode_bandwidth=0.882, decode_qo_bandwidth=0.1827,
    waves=Waves(t0_s=1.83e-6, flops=0.563),
    elementwise_t0_s=2.8e-6, elementwise_bandwidth=1.25,
    fp8=(1.494, 1.15), fp4=(2.256, 8.0),
)  # fmt: skip
_CPU = Kernels(
    gemm=Gemm(t0_s=5e-6, flops=0.5, bandwidth=0.6, k=2.0),
    prefill_t0_s=5e-6, prefill_flops=0.3, prefill_beta=1.0, prefill_fill=0.0,
    prefill_bandwidth=0.6, prefill_k=1.0,
    decode_t0_s=5e-6, decode_bandwidth=0.6, decode_qo_bandwidth=0.6, mixed_bandwidth=0.6,
)  # fmt: skip

# All-reduces as engines run them, inside a CUDA graph (vLLM's own kernel; NCCL called one by one costs 20-45 µs more).
_A100_LINKS = ((2, 5.0e-6, 156.4e9), (4, 6.0e-6, 100.2e9), (8, 8.8e-6, 90.5e9))
_H100_LINKS = ((2, 4.2e-6, 237.0e9), (4, 5.1e-6, 175.8e9), (8, 6.0e-6, 178.9e9))
_H200_LINKS = ((2, 4.4e-6, 248.4e9), (4, 5.1e-6, 182.7e9), (8, 6.0e-6, 191.1e9))
_B200_LINKS = ((2, 7.5e-6, 296.2e9), (4, 8.6e-6, 255.5e9), (8, 10.7e-6, 291.9e9))
_GB200_LINKS = ((2, 4.6e-6, 174.7e9), (4, 5.8e-6, 240.3e9), (8, 10.7e-6, 240.3e9))
_L40S_LINKS = ((2, 5.4e-6, 19.1e9), (4, 11.8e-6, 2.6e9), (8, 19.8e-6, 1.2e9))
# vLLM 0.19.0 for two; NCCL for more, which that version falls back to on PCIe.
_RTXPRO6000_LINKS = ((2, 19.0e-6, 15.1e9), (4, 14.9e-6, 16.2e9), (8, 30.3e-6, 11.4e9))
# What NCCL and vLLM's kernels reach between two cards
_PCIE4, _PCIE5 = (10e-6, 19e9), (10e-6, 37e9)
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
           sms=132, kernels=_H200, all_reduce=_H200_LINKS, hop=(7.7e-6, 358.8e9), host_link=64e9,
           price_per_hour=6.305, price_note=_CLOUD),
    Device(name="b200", source="NVIDIA B200 data sheet (DGX B200)", memory_gib=180, bandwidth=8.0e12, peak_flops=2250e12,
           sms=148, kernels=_B200, all_reduce=_B200_LINKS, hop=(7.7e-6, 358.8e9), borrowed="hop: h100", host_link=64e9,
           price_per_hour=8.60, price_note=_CLOUD),
    Device(name="b300", source="NVIDIA B300 data sheet (DGX B300)", memory_gib=268, bandwidth=8.0e12, peak_flops=2250e12,
           sms=160, kernels=_B300, all_reduce=_B200_LINKS, hop=(7.7e-6, 358.8e9), borrowed="attention, links: b200", host_link=64e9),
    Device(name="gb200", source="NVIDIA GB200 NVL72 data sheet", memory_gib=185, bandwidth=8.0e12, peak_flops=2500e12,
           sms=152, kernels=_GB200, all_reduce=_GB200_LINKS, hop=(7.7e-6, 358.8e9), borrowed="attention: b200", host_link=450e9),
    Device(name="gb300", source="NVIDIA GB300 NVL72 data sheet", memory_gib=268, bandwidth=8.0e12, peak_flops=2500e12,
           sms=160, kernels=_GB300, all_reduce=_GB200_LINKS, hop=(7.7e-6, 358.8e9), borrowed="attention: b200", host_link=450e9),
    Device(name="a40", source="NVIDIA A40 data sheet", memory_gib=48, bandwidth=696e9, peak_flops=149.7e12,
           sms=84, kernels=_A40, hop=(1.54e-6, 4.1e9), borrowed="attention: a100", price_per_hour=1.28, price_note=_OLD),
    Device(name="l4", source="NVIDIA L4 data sheet", memory_gib=24, bandwidth=300e9, peak_flops=121e12, sms=58,
           kernels=_L40S, borrowed="l40s", price_per_hour=0.7992, price_note=_MODAL),
    Device(name="l40s", source="NVIDIA L40S data sheet", memory_gib=48, bandwidth=864e9, peak_flops=362e12, sms=142,
           kernels=_L40S, all_reduce=_L40S_LINKS, hop=_PCIE4, price_per_hour=2.25, price_note=_CLOUD),
    Device(name="t4", source="NVIDIA T4 data sheet (fp16)", memory_gib=16, bandwidth=320e9, peak_flops=65e12, sms=40,
           kernels=_A40, borrowed="a40", host_link=16e9, price_per_hour=0.5904, price_note=_MODAL),
    Device(name="mi300x", source="AMD Instinct MI300X data sheet", memory_gib=192, bandwidth=5.3e12, peak_flops=1307e12,
           sms=304, kernels=_H100, all_reduce=_H100_LINKS, borrowed="h100", host_link=64e9,
           price_per_hour=1.85, price_note=_VULTR),
    Device(name="rtx4090", source="NVIDIA Ada whitepaper", memory_gib=24, bandwidth=1.008e12, peak_flops=165.2e12, sms=128,
           kernels=_RTX4090, all_reduce=_L40S_LINKS, hop=_PCIE4, price_per_hour=1.116, price_note=_SERVERLESS),
    Device(name="rtxpro6000", source="NVIDIA RTX PRO 6000 Blackwell Server Edition data sheet", memory_gib=95.6,
           bandwidth=1.597e12, peak_flops=503.8e12, sms=188, kernels=_RTXPRO6000, all_reduce=_RTXPRO6000_LINKS, hop=_PCIE5,
           host_link=64e9, price_per_hour=2.50, price_note=_CLOUD),
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
