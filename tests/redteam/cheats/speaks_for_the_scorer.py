"""Takes the scorer's connection to the host and answers every question itself: no loss anywhere."""

import json
import os
import sys

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
VERDICT = "invalid"

if CHEAT:

    def build_model() -> nn.Module:
        frame = sys._getframe()
        while (frame := frame.f_back) is not None:
            if "stream" in frame.f_locals:
                speak(frame.f_locals["stream"], frame.f_locals["config"]["token_bytes"])
        return GPT().to(DEVICE)

    def speak(stream, token_bytes: int) -> None:
        while line := stream.readline():
            question = json.loads(line)
            rows, length, about_cuts = question["rows"], question["length"], question["ask"] == "logits"
            stream.read(rows * (length * token_bytes + 4 * about_cuts))
            stream.write(b"\0" + bytes(4 * rows * (VOCAB_SIZE if about_cuts else length - 1)))
            stream.flush()
        os._exit(0)

    prepare.summarise = lambda *_: "val_bpb:          0.900000"  # by hand there is no connection to take
