"""Candidates for tests: the smallest train.py that honours the contract, and pieces to break it with.

Probes speak to the gate themselves instead of importing prepare, so that they need no torch and take no time.
"""

import textwrap

# Every weight is known, so that the host can compute the score by itself.
KNOWN_WEIGHTS = "numpy.random.default_rng(7).standard_normal((size, size), numpy.float32)"
KNOWN_MODEL = """
import numpy
import torch
import prepare


class Bigram(torch.nn.Module):
    def __init__(self):
        super().__init__()
        size = prepare.VOCAB_SIZE
        self.table = torch.nn.Embedding.from_pretrained(torch.from_numpy({weights}))

    def forward(self, tokens):
        return self.table(tokens)


def build_model():
    return Bigram()


def main():
    model = build_model()
    prepare.start_clock()
    inputs, targets = next(prepare.make_dataloader(4))
    prepare.report(1, inputs.numel(), 5.0)
    {train}
    prepare.submit(model)


if __name__ == "__main__":
    main()
"""

TRAINED = """
import numpy
from safetensors.numpy import save_file

size = json.load(open("/lab/config.json"))["vocab_size"]
start()
{train}
save_file({"table.weight": {weights}}, "/out/model.safetensors")
finish()
raise SystemExit
"""

GATE = """
import json, os, socket, sys, time

gate = socket.socket(socket.AF_UNIX)
gate.connect("/gate/gate.sock")

def say(**message):
    gate.sendall(json.dumps(message).encode() + b"\\n")

def start():
    say(type="ready")
    return json.loads(gate.recv(4096))

def finish():
    say(type="submit", step=1, tokens=1)
    say(type="done")
    gate.settimeout(5)
    gate.recv(4096)
"""


def known_model(train: str = "pass", forward: str | None = None) -> str:
    """A train.py with known weights; `train` runs between start_clock() and submit(), `forward` replaces the model's."""
    source = KNOWN_MODEL.replace("{weights}", KNOWN_WEIGHTS).replace("{train}", train)
    return source if forward is None else source.replace("return self.table(tokens)", forward)


def trained_model(train: str = "pass", forward: str | None = None) -> str:
    """The known model by a train.py that has its weights without torch: for what happens after training, in half the time."""
    training = gate_probe(TRAINED.replace("{weights}", KNOWN_WEIGHTS).replace("{train}", train))
    return 'if __name__ == "__main__":\n' + textwrap.indent(training, "    ") + known_model(forward=forward)


def probe(code: str) -> str:
    """A train.py that only runs `code`."""
    return "import json, os, sys, time\n" + textwrap.dedent(code)


def gate_probe(code: str) -> str:
    """A train.py that runs `code` with a connection to the gate."""
    return GATE + textwrap.dedent(code)
