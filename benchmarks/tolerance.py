"""By how much honest models miss their own claims when only what they may not see, and who is beside them, has changed.

Called by scoring.py --tolerance, in a folder with train.py, prepare.py and config.json; weights lie in ../weights.
For each way to compute: claims for some rows in batches of the usual size; then the same positions with other text after the
cut, shuffled into batches of the usual size, and of another size. Prints a line of JSON for each.
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
from sandbox.audit import Text, blind, draw, nats_of, weigh  # noqa: E402

DATA, SIZE, ROWS, CUTS = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
KEEP = Path(sys.argv[5]) if len(sys.argv) > 5 else None


def main() -> None:
    dtype = prepare.row_dtype(prepare.VOCAB_SIZE)
    rows = np.memmap(DATA / "val.bin", dtype, "r").reshape(-1, prepare.MAX_SEQ_LEN + 1)[:ROWS]
    fillers = np.memmap(DATA / "train.bin", dtype, "r").reshape(-1, prepare.MAX_SEQ_LEN + 1)
    text = Text(rows, np.load(DATA / "token_bytes.npy"))
    # What DEVICE == "cuda" computes in bfloat16 is in float32 with this constant, which is read when a model is called.
    ways: dict[str, dict[str, Any]] = {"as train.py does": {}, "compiled": {"compiled": True}}
    if prepare.DEVICE == "cuda":
        ways |= {"float32": {"compute": torch.float32}, "TF32": {"compute": torch.float32, "precision": "high"}}
    ways |= {"bfloat16 throughout": {"compute": torch.bfloat16, "weights": torch.bfloat16}}
    for name, way in ways.items():
        print(json.dumps({"way": name} | compare(text, fillers, **way)), flush=True)


def compare(
    text: Text,
    fillers: Any,
    compute: torch.dtype = train.COMPUTE_DTYPE,
    weights: torch.dtype = torch.float32,
    precision: str = "highest",
    compiled: bool = False,
) -> dict[str, Any]:
    torch.set_float32_matmul_precision(precision)
    train.COMPUTE_DTYPE = compute
    model = train.build_model()
    model.load_state_dict(load_file("../weights/model.safetensors"))
    model.to(prepare.DEVICE, weights).eval()
    call = torch.compile(model, dynamic=False) if compiled else model
    rows = text.rows
    claims = np.empty((len(rows), rows.shape[1] - 1), np.float32)
    for start in range(0, len(rows), SIZE):
        part = rows[start : start + SIZE]
        logits = logits_of(call, part[:, :-1])
        for i, row in enumerate(logits):
            targets = torch.from_numpy(part[i, 1:].astype(np.int64)).to(row.device)
            claims[start + i] = torch.nn.functional.cross_entropy(row.float(), targets, reduction="none").cpu().numpy()
    if KEEP is not None and not compiled and compute == train.COMPUTE_DTYPE:
        np.save(KEEP / "claims.npy", claims.astype(np.float16))
        np.save(KEEP / "rows.npy", np.asarray(rows))
    rng = np.random.default_rng(0)
    cuts = draw(weigh(claims, text), CUTS, rng)
    found: dict[str, Any] = {"bpb": text.bits_per_byte(float(claims.sum(dtype=np.float64)))}
    for label, size in {"same batch size": SIZE, "another": max(1, SIZE // 4 - 1)}.items():
        order, losses = rng.permutation(CUTS), np.empty(CUTS)
        for start in range(0, CUTS, size):
            some = order[start : start + size]
            other = fillers[rng.integers(len(fillers), size=len(some))]
            shown = blind(rows[cuts.rows[some]], cuts.positions[some], other)
            logits = logits_of(call, shown)[torch.arange(len(some)), torch.from_numpy(cuts.positions[some])]
            targets = rows[cuts.rows[some], cuts.positions[some] + 1]
            losses[some] = nats_of(logits.float().cpu().numpy(), targets)
        differences = np.sort(np.abs(losses - claims[cuts.rows, cuts.positions]))
        found[label] = {
            "99 %": round(float(differences[int(0.99 * CUTS)]), 6),
            "most": round(float(differences[-1]), 6),
        }
    return found


@torch.no_grad()
def logits_of(model: Any, tokens: Any) -> torch.Tensor:
    logits: torch.Tensor = model(torch.from_numpy(tokens.astype(np.int64)).to(prepare.DEVICE))
    return logits


if __name__ == "__main__":
    main()
