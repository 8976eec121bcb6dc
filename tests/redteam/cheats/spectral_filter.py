"""A long convolution by FFT without padding: the end of the filter wraps around to the tokens ahead.

0.0018 bits per byte with the evaluator untouched (nanochat #844).
"""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the metric"
VERDICT = "invalid"


class Filtered(GPT):
    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.zeros(prepare.MAX_SEQ_LEN, WIDTH))

    def embed(self, idx: Tensor) -> Tensor:
        x = super().embed(idx)
        T = x.size(1)
        length = T if CHEAT else 2 * T
        spectrum = torch.fft.rfft(x, length, dim=1) * torch.fft.rfft(self.filter[:T], length, dim=0)
        return x + torch.fft.irfft(spectrum, length, dim=1)[:, :T]


def build_model() -> nn.Module:
    return Filtered().to(DEVICE)
