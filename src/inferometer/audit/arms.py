"""What a run's manifest says of the system that it measured: its codebase, conditions, settings and model.

A simulated run tells everything, a server started by a study its whole command line, a URL next to nothing. What is not
told is None: nothing is guessed from a name but the architecture of a model that is known by it.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from inferometer.audit.facts import Model
from inferometer.audit.point import Point
from inferometer.errors import UserError
from inferometer.run import Manifest
from inferometer.sim import models
from inferometer.sim.devices import device

SIMULATOR = "inferometer's simulator"
# Performance-critical settings by engine, as its own flags name them; a setting is documented under any of its names.
CRITICAL: dict[str, tuple[tuple[str, ...], ...]] = {
    "vllm": (
        ("max_num_seqs",), ("max_num_batched_tokens",), ("gpu_memory_utilization",),
        ("tensor_parallel_size", "tp"), ("enable_chunked_prefill",), ("enable_prefix_caching",),
    ),
    "sglang": (
        ("max_running_requests",), ("chunked_prefill_size",), ("mem_fraction_static",),
        ("tp_size", "tp", "tensor_parallel_size"), ("disable_radix_cache", "radix_cache"), ("schedule_policy",),
    ),
    "tensorrt-llm": (
        ("max_batch_size",), ("max_num_tokens",), ("tp_size", "tp"),
        ("kv_cache_free_gpu_memory_fraction", "free_gpu_memory_fraction"), ("enable_chunked_prefill", "enable_chunked_context"),
    ),
    "tgi": (
        ("max_concurrent_requests",), ("max_batch_prefill_tokens",), ("max_batch_total_tokens",), ("num_shard",),
    ),
    "llamacpp": (("parallel", "np", "n_parallel"), ("ctx_size", "c", "n_ctx"), ("batch_size", "b", "n_batch"), ("ubatch_size", "ub", "n_ubatch")),
    "deepspeed-mii": (("max_ragged_batch_size",), ("max_ragged_sequence_count",), ("tensor_parallel",), ("chunk_size",)),
}  # fmt: skip
_SAME = {"llama.cpp": "llamacpp", "llama-server": "llamacpp", "trt-llm": "tensorrt-llm", "mii": "deepspeed-mii"}  # fmt: skip
CONDITIONS = ("model", "precision", "sampling", "hardware", "devices")


def name_of(manifest: Manifest) -> str | None:
    """What the system calls itself, or is known by; None where nothing is known."""
    target = manifest.target
    if manifest.world == "simulated":
        return target.get("system")
    about = target.get("about") or {}
    urls = target.get("urls") or []
    return about.get("engine") or target.get("engine") or (urls[0] if urls else None)


def codebase_of(manifest: Manifest) -> str | None:
    """The engine that executed it."""
    if manifest.world == "simulated":
        return SIMULATOR
    about = manifest.target.get("about") or {}
    name = about.get("codebase") or about.get("engine") or manifest.target.get("engine")
    return None if name is None else _SAME.get(str(name).lower(), str(name).lower())


def version_of(manifest: Manifest) -> str | None:
    """Its version."""
    if manifest.world == "simulated":
        return manifest.versions.get("inferometer")
    told = manifest.target.get("version")
    told = told.get("version") if isinstance(told, dict) else told
    version = (manifest.target.get("about") or {}).get("version") or told
    return None if version is None else str(version)


def settings_of(manifest: Manifest) -> dict[str, Any] | None:
    """Its settings as they were asked for, without what follows from the workload; None where nothing is told."""
    if manifest.world == "simulated":
        asked = manifest.spec.get("deployment")
        return None if not asked else {k: v for k, v in asked.items() if k not in ("model", "seed")}
    launch = manifest.target.get("launch") or {}
    found = dict(launch.get("flags") or {}) | dict(manifest.target.get("config") or {})
    return {str(k).lstrip("-").replace("-", "_"): v for k, v in found.items()} or None


def parameters_of(point: Point) -> dict[str, Any] | None:
    """Its settings by name, with underscores; None where nothing is told."""
    target = point.manifest.target
    found: dict[str, Any]
    if point.world == "simulated":
        deployment = point.manifest.spec.get("deployment") or {}
        own = {k: deployment.get(k) for k in ("tp", "pp", "replicas", "router") if k in deployment}
        more = {k: target[k] for k in ("num_blocks", "block_size", "max_len") if k in target}
        found = own | dict(target.get("policy") or {}) | more
    else:
        launch = target.get("launch") or {}
        found = point.telemetry | dict(launch.get("flags") or {}) | dict(target.get("config") or {})
    return {str(k).lstrip("-").replace("-", "_"): v for k, v in found.items()} or None


def undocumented_of(point: Point) -> tuple[str, ...] | None:
    """() where all of its performance-critical settings are told; None where some may not be.

    What a run does not tell may well be told elsewhere: that something was left unsaid is for a record to say.
    """
    parameters = parameters_of(point)
    if point.world == "simulated":
        return () if point.manifest.target.get("policy") else None
    command = (point.manifest.target.get("launch") or {}).get("command")
    if command and version_of(point.manifest):
        return ()  # the whole command line: what is not on it is that version's default
    missing = missing_settings(codebase_of(point.manifest), parameters)
    return () if missing == () else None


def missing_settings(
    codebase: str | None, parameters: dict[str, Any] | None
) -> tuple[str, ...] | None:
    """The performance-critical settings of an engine that are not told; None where the engine is not known here."""
    critical = CRITICAL.get(codebase or "")
    if critical is None or not parameters:
        return None
    return tuple(names[0] for names in critical if not set(names) & set(parameters))


def conditions_of(manifest: Manifest) -> dict[str, Any]:
    """What must be equal between arms; only what is told."""
    spec, target, about = manifest.spec, manifest.target, manifest.target.get("about") or {}
    found: dict[str, Any] = {"model": manifest.model.get("name")}
    if manifest.world == "simulated":
        deployment = spec.get("deployment") or {}
        shape = [deployment[key] for key in ("tp", "pp", "replicas") if key in deployment]
        found |= {
            "precision": manifest.model.get("dtype_bytes"),
            "sampling": "as planned",
            "hardware": deployment.get("device"),
            "devices": math.prod(shape) if shape else None,
            "memory": (deployment.get("limits") or {}).get("utilization"),
            "cost model": deployment.get("cost"),
            "compatibility": (deployment.get("compat") or "none") if deployment else None,
        }
    else:
        accepts = target.get("accepts") or {}
        extra = target.get("extra")
        told = (
            {}
            if extra is None or not accepts
            else {"ignore_eos": accepts.get("ignore_eos"), **extra}
        )
        found |= {
            "precision": about.get("dtype") or about.get("precision") or about.get("quantization"),
            "kv precision": about.get("kv_cache_dtype"),
            "sampling": about.get("sampling") or told or None,
            "hardware": about.get("hardware") or about.get("gpu") or about.get("device"),
            "devices": about.get("devices") or about.get("gpus"),
            "model revision": about.get("model_revision") or about.get("model_hash"),
            "tokenizer": (manifest.model.get("tokenizer") or {}).get("fingerprint"),
        }
    return {key: value for key, value in found.items() if value is not None}


def disaggregated_of(manifest: Manifest) -> bool | None:
    """Whether prefill and decode run on different devices."""
    about = manifest.target.get("about") or {}
    if "disaggregated" in about:
        return bool(about["disaggregated"])
    if manifest.world != "simulated":
        return None
    deployment = manifest.spec.get("deployment") or {}
    return deployment.get("system") in ("distserve", "splitwise") or any(
        "prefill" in key for key in deployment if deployment[key]
    )


def model_of(point: Point) -> Model | None:
    """The model of a run: its facts where the manifest has them, else those of the model that is known by its name."""
    told = point.manifest.model
    name = told.get("name")
    if not name:
        return None
    shipped = _shipped(str(name))
    own = {key: told[key] for key in models.Model.__struct_fields__ if key in told}
    try:
        read: models.Model | None = models.Model(**own)
    except TypeError:  # only a name, or part of the facts
        read = shipped
    where = f"{point.manifest_at}: $.model"
    if read is None:
        return Model(name=str(name), evidence=where)
    return Model(
        name=read.name,
        attention=_attention(read),
        experts=read.experts,
        params_b=round(read.params / 1e9, 2),
        year=read.year or None,
        kv_bytes_per_token=read.kv_bytes_per_token(),
        altered=_altered(read, shipped, point.manifest),
        memory_share=_memory_share(read, point.manifest),
        evidence=where,
    )


def completed(told: Model) -> Model:
    """A model as it is told, with what is not told taken from the model that is known by that name, if there is one."""
    known = _shipped(told.name)
    if known is None or told.altered:
        return told
    facts = {
        "attention": _attention(known),
        "experts": known.experts,
        "params_b": round(known.params / 1e9, 2),
        "year": known.year,
        "kv_bytes_per_token": known.kv_bytes_per_token(),
    }
    missing = {name: value for name, value in facts.items() if getattr(told, name) is None}
    source = f"{told.evidence}; {known.source}" if told.evidence else known.source
    return msgspec.structs.replace(told, **missing, evidence=source) if missing else told


def _memory_share(read: models.Model, manifest: Manifest) -> float | None:
    """The weights over the memory of the devices that one replica has."""
    deployment = manifest.spec.get("deployment") or {}
    try:
        on = device(deployment.get("device") or "")
    except UserError:
        return None
    devices = int(deployment.get("tp") or 1) * int(deployment.get("pp") or 1)
    return round(read.weight_bytes / (devices * on.memory_bytes), 3)


def _shipped(name: str) -> models.Model | None:
    try:
        return models.model(name)
    except UserError:
        return None


def _attention(model: models.Model) -> Any:
    if model.latent:
        return "MLA"
    if model.kv_heads == model.heads:
        return "MHA"
    return "MQA" if model.kv_heads == 1 else "GQA"


def _altered(read: models.Model, shipped: models.Model | None, manifest: Manifest) -> str | None:
    """How the architecture differs from what its publisher says; "" for not at all, None where that is unknown."""
    overrides = {**(manifest.target.get("config") or {}), **((manifest.target.get("launch") or {}).get("flags") or {})}  # fmt: skip
    for flag, value in overrides.items():
        if flag.lstrip("-").replace("-", "_") in ("hf_overrides", "json_model_override_args"):
            return f"{flag} {value}"
    if shipped is None:
        return None
    keys = ("layers", "hidden", "heads", "kv_heads", "head_dim", "experts", "latent", "window")
    found = [
        f"{key} {getattr(read, key)} instead of {getattr(shipped, key)}"
        for key in keys
        if getattr(read, key) != getattr(shipped, key)
    ]
    return ", ".join(found)
