"""Profiles: every size that follows from how much compute there is. One command-line flag per knob overrides it."""

Knob = int | float | str

PROFILES: dict[str, dict[str, Knob]] = {
    "cpu": {  # two cores, seconds
        "max_seq_len": 256,
        "vocab_size": 1024,
        "eval_tokens": 2**17,
        "time_budget_s": 20.0,
        "depth": 2,
        "aspect_ratio": 64,
        "head_dim": 64,
        "window_pattern": "L",
        "device_batch_size": 8,
        "total_batch_tokens": 2**11,
    },
    "small": {  # one consumer GPU of 8 to 24 GB
        "max_seq_len": 1024,
        "vocab_size": 4096,
        "eval_tokens": 2**21,
        "time_budget_s": 300.0,
        "depth": 6,
        "aspect_ratio": 64,
        "head_dim": 64,
        "window_pattern": "L",
        "device_batch_size": 16,
        "total_batch_tokens": 2**16,
    },
    "h100": {  # the constants of karpathy/autoresearch
        "max_seq_len": 2048,
        "vocab_size": 8192,
        "eval_tokens": 40 * 2**19,
        "time_budget_s": 300.0,
        "depth": 8,
        "aspect_ratio": 64,
        "head_dim": 128,
        "window_pattern": "SSSL",
        "device_batch_size": 128,
        "total_batch_tokens": 2**19,
    },
}

SHARDS = {"cpu": 1, "small": 4, "h100": 12}
"""Training shards of climbmix, about 55 M tokens each: as many as a run of the profile's budget passes over once."""
