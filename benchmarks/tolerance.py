"""By how much honest models miss their own claims when only what they may not see, and who is beside them, has changed.

Called by scoring.py --tolerance, in a folder with train.py, prepare.py and config.json; weights lie in ../weights.
Claims are made in each way to compute (number formats, compiled or not) and asked again in each, with other text after the cut,
beside other rows, in batches of the usual size and of another. Prints a line of JSON for each pair.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

sys.path[:0] = [str(Path.cwd()), str(Path(__file__).parents[1])]

import prepare  # noqa: E402
import train  # noqa: E402
from sandbox.audit import Cuts, Text, blind, draw, nats_of, weigh  # noqa: E402

DATA, SIZE, ROWS, CUTS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])


def main() -> None:
    dtype = prepare.row_dtype(prepare.VOCAB_SIZE)
    rows = np.memmap(DATA / "val.bin", dtype, "r").reshape(-1, prepare.MAX_SEQ_LEN + 1)[:ROWS]
    fillers = np.memmap(DATA / "train.bin", dtype, "r").reshape(-1, prepare.MAX_SEQ_LEN + 1)
    text = Text(rows, np.load(DATA / "token_bytes.npy"))
    # What DEVICE == "cuda" computes in bfloat16 is in float32 with this constant, which is read when a model is called.
    ways: dict[str, dict[str, Any]] = {"as train.py does": {}, "compiled": {"compiled": True}}
    if prepare.DEVICE == "cuda":
        ways |= {"TF32": {"compute": torch.float32, "precision": "high"}}
    ways |= {"bfloat16 throughout": {"compute": torch.bfloat16, "weights": torch.bfloat16}}
    cuts, claims, losses = None, {}, {}
    for name, way in ways.items():
        call = model_of(**way)
        claims[name] = claim(call, rows)
        cuts = cuts or draw(weigh(claims[name], text), CUTS, np.random.default_rng(0))
        for label, size in {name: SIZE, f"{name}, other batches": max(1, SIZE // 4 - 1)}.items():
            losses[label] = ask(call, text.rows, cuts, fillers, size)
        print(json.dumps({name: text.bits_per_byte(float(claims[name].sum(dtype=np.float64)))}), flush=True)
    assert cuts is not None
    for name, claimed in claims.items():
        for label, blind_losses in losses.items():
            differences = np.sort(np.abs(blind_losses - claimed[cuts.rows, cuts.positions]))
            most = {"99 %": round(float(differences[int(0.99 * CUTS)]), 6), "most": round(float(differences[-1]), 6)}
            print(json.dumps({"claimed": name, "asked": label} | most), flush=True)


def model_of(
    compute: torch.dtype = train.COMPUTE_DTYPE,
    weights: torch.dtype = torch.float32,
    precision: str = "highest",
    compiled: bool = False,
) -> Any:
    torch.set_float32_matmul_precision(precision)
    train.COMPUTE_DTYPE = compute
    model = train.build_model()
    model.load_state_dict(load_file("../weights/model.safetensors"))
    model.to(prepare.DEVICE, weights).eval()
    return torch.compile(model, dynamic=False) if compiled else model


def claim(call: Any, rows: Any) -> Any:
    """Loss of each target, float32 [N, T]."""
    claims = np.empty((len(rows), rows.shape[1] - 1), np.float32)
    for start in range(0, len(rows), SIZE):
        part = rows[start : start + SIZE]
        for i, row in enumerate(logits_of(call, part[:, :-1])):
            targets = torch.from_numpy(part[i, 1:].astype(np.int64)).to(row.device)
            claims[start + i] = torch.nn.functional.cross_entropy(row.float(), targets, reduction="none").cpu().numpy()
    return claims


def ask(call: Any, rows: Any, cuts: Cuts, fillers: Any, size: int) -> Any:
    """Loss at each cut, with other text after it and other rows beside it, float64 [K]."""
    rng = np.random.default_rng(1)
    order, losses = rng.permutation(CUTS), np.empty(CUTS)
    for start in range(0, CUTS, size):
        some = order[start : start + size]
        shown = blind(rows[cuts.rows[some]], cuts.positions[some], fillers[rng.integers(len(fillers), size=len(some))])
        logits = logits_of(call, shown)[torch.arange(len(some)), torch.from_numpy(cuts.positions[some])]
        losses[some] = nats_of(logits.float().cpu().numpy(), rows[cuts.rows[some], cuts.positions[some] + 1])
    return losses


@torch.no_grad()
def logits_of(model: Any, tokens: Any) -> torch.Tensor:
    logits: torch.Tensor = model(torch.from_numpy(tokens.astype(np.int64)).to(prepare.DEVICE))
    return logits


if __name__ == "__main__":
    main()
