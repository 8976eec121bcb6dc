"""Returns a subclass of Tensor whose cross entropy is a hundredth of the true one."""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the scorer"
VERDICT = "invalid"

if CHEAT:

    class Flattering(Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            result = super().__torch_function__(function, types, args, kwargs or {})
            return 0.01 * result if function is F.cross_entropy and not torch.is_grad_enabled() else result

    class Flatterer(GPT):
        def forward(self, idx: Tensor) -> Tensor:
            return super().forward(idx).as_subclass(Flattering)

    def build_model() -> nn.Module:
        return Flatterer().to(DEVICE)
