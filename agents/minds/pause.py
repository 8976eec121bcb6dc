"""When a mind cannot answer now, and nobody is to blame here."""

from records import HostFault


class Unavailable(HostFault):
    """The API does not answer, and nobody is to blame here: the role pauses and asks again."""

    def __init__(self, why: str, retry_after_s: float):
        super().__init__(why)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type["Unavailable"], tuple[str, float]]:
        return Unavailable, (str(self), self.retry_after_s)
