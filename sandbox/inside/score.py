"""Runs in the scoring container: the candidate's model, our loss. Reads /weights and /rows, writes /out/nats.npy.

The candidate's code runs in this very process, so what is written here is a claim; the host checks its form.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import train

LOGITS_BYTES = {"cpu": 2**26, "cuda": 2**30}
"""Size of the logits of one batch, in float32."""


def main() -> None:
    config = json.loads(Path("/lab/config.json").read_text())
    device, vocab_size = config["device"], config["vocab_size"]
    rows = np.load("/rows/rows.npy", mmap_mode="r", allow_pickle=False)
    model = train.build_model()
    model = getattr(model, "_orig_mod", model)  # names of the weights are those of the uncompiled module
    model.load_state_dict(load_file("/weights/model.safetensors"))
    model.to(device).eval()
    batch = max(1, LOGITS_BYTES[device] // (4 * config["max_seq_len"] * vocab_size))
    nats = [
        score(model, torch.from_numpy(rows[start : start + batch].astype(np.int64)).to(device), vocab_size)
        for start in range(0, len(rows), batch)
    ]
    with Path("/out/nats.npy").open("wb") as file:
        np.save(file, np.concatenate(nats), allow_pickle=False)


def score(
    model: torch.nn.Module, tokens: torch.Tensor, vocab_size: int
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Loss in nats of each target, float32 [B, T]; `tokens` are int64 [B, T + 1]."""
    inputs, targets = tokens[:, :-1].clone(), tokens[:, 1:]
    with torch.no_grad():
        logits = model(inputs)
    if logits.shape != (*inputs.shape, vocab_size):
        raise ValueError(f"logits have shape {tuple(logits.shape)}, not {(*inputs.shape, vocab_size)}")
    log_probabilities = torch.log_softmax(logits.float(), dim=-1)
    return -log_probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1).cpu().numpy().astype(np.float32)


if __name__ == "__main__":
    main()
