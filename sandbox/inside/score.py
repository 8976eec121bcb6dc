"""Runs in the scoring containers: the candidate's model, asked about rows of tokens.

The candidate's code runs in this very process, so whatever leaves it is a claim; the host believes only what it has audited.
A question is a line of JSON and then the tokens; an answer is a zero byte and float32 numbers, or another byte and a line:

    {"ask": "losses", "rows": B, "length": T + 1}   → loss of each target given all of the row before it, [B, T]
    {"ask": "logits", "rows": B, "length": T}, then the cuts, uint32 [B] → logits at the cut of each row, [B, VOCAB_SIZE]

Until the host says `begin`, nothing of the candidate's is imported: a container may be started while another one is at work.
"""

import gc
import json
import queue
import socket
import threading
from pathlib import Path
from typing import Any, BinaryIO

gc.disable()  # a sixth of the time that torch takes to import would go into looking for garbage, and hardly any is there
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file

gc.freeze()  # nor is it looked for later
gc.enable()


class Refused(Exception):
    """The model does not honour the contract."""


def main() -> None:
    config = json.loads(Path("/lab/config.json").read_text())
    with socket.socket(socket.AF_UNIX) as gate:
        gate.connect("/gate/gate.sock")
        stream = gate.makefile("rwb")
        stream.readline()
        model = load_model(config["device"], config["scrambled"])
        questions: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue(maxsize=1)
        # Read ahead by a thread, or both ends could wait for each other with full buffers.
        threading.Thread(target=read_questions, args=(stream, questions, config["token_bytes"]), daemon=True).start()
        while (question := questions.get())[0]:
            try:
                numbers = answer(model, *question, config)
            except Refused as refused:
                stream.write(f"!{refused}\n".encode())
            else:
                stream.write(b"\0" + numbers.astype("<f4").tobytes())
            stream.flush()


@torch.no_grad()  # also says to train.py that this is no training
def load_model(device: str, scrambled: bool) -> torch.nn.Module:
    if scrambled:
        torch.manual_seed(1)  # both processes are to begin with the same weights
    import train

    model = train.build_model()
    model = getattr(model, "_orig_mod", model)  # names of the weights are those of the uncompiled module
    if scrambled:
        scramble(model)
    else:
        model.load_state_dict(load_file("/weights/model.safetensors"))
    return model.to(device).eval()


@torch.no_grad()
def scramble(model: torch.nn.Module) -> None:
    """Weights that nobody has trained, and none of which is zero: whatever a model looks at shows in its logits."""
    generator = torch.Generator().manual_seed(1)
    for weight in model.state_dict().values():
        if weight.is_floating_point():
            scale = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.1
            weight.add_(scale * torch.randn(weight.shape, generator=generator).to(weight))


def read_questions(stream: BinaryIO, questions: "queue.Queue[tuple[dict[str, Any], bytes]]", token_bytes: int) -> None:
    while line := stream.readline():
        question = json.loads(line)
        size = question["rows"] * question["length"] * token_bytes + question["rows"] * 4 * (
            question["ask"] == "logits"
        )
        questions.put((question, stream.read(size)))
    questions.put(({}, b""))


def answer(
    model: torch.nn.Module, question: dict[str, Any], payload: bytes, config: dict[str, Any]
) -> NDArray[np.float32]:
    shape, dtype = (question["rows"], question["length"]), f"<u{config['token_bytes']}"
    tokens = np.frombuffer(payload, dtype, count=shape[0] * shape[1]).reshape(shape)
    rows = torch.from_numpy(tokens.astype(np.int64)).to(config["device"])
    if question["ask"] == "losses":
        logits = run(model, rows[:, :-1].clone(), config["vocab_size"])
        return losses(logits, rows[:, 1:])
    cuts = torch.from_numpy(np.frombuffer(payload, "<u4", offset=tokens.nbytes).astype(np.int64)).to(config["device"])
    logits = run(model, rows.clone(), config["vocab_size"])
    found: NDArray[np.float32] = logits[torch.arange(len(rows), device=logits.device), cuts].float().cpu().numpy()
    return found


@torch.no_grad()
def run(model: torch.nn.Module, inputs: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Logits [B, T, vocab_size] of whatever floating point type the model computes in."""
    shape = (*inputs.shape, vocab_size)
    logits = model(inputs)
    if not isinstance(logits, torch.Tensor):
        raise Refused(f"forward() returns {type(logits).__name__}, not a tensor")
    if logits.shape != shape:
        raise Refused(f"logits have shape {list(logits.shape)}, not {list(shape)}")
    if not logits.is_floating_point():
        raise Refused(f"logits are {logits.dtype}, not floating point")
    return logits


@torch.no_grad()
def losses(logits: torch.Tensor, targets: torch.Tensor) -> NDArray[np.float32]:
    """Nats of each target, [B, T]. Row by row: a second copy of all logits might not fit."""
    rows = zip(logits, targets, strict=True)
    found = torch.stack([F.cross_entropy(row.float(), target, reduction="none") for row, target in rows])
    numbers: NDArray[np.float32] = found.cpu().numpy()
    return numbers


if __name__ == "__main__":
    main()
