"""When a mind does not answer: for a while, or until a person has mended something."""

from records import BadInput, HostFault


class Rejected(BadInput):
    """What the API will refuse however often it is asked: a wrong key, an unknown model. A person has to mend that."""


class Unavailable(HostFault):
    """The API does not answer, and nobody is to blame here: the role pauses and asks again."""

    def __init__(self, why: str, retry_after_s: float):
        super().__init__(why)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type["Unavailable"], tuple[str, float]]:
        return Unavailable, (str(self), self.retry_after_s)
