"""What language models cost: a table that a person can read and extend, and the price of a call by it."""

import math
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from records import BadInput, Usage

BUILT_IN = Path(__file__).parent / "prices.toml"

Dollars = Annotated[float, Field(ge=0, le=10_000)]


class Rates(BaseModel):
    """US dollars for a million tokens; so many dollars a million are as many millionths of a dollar a token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Dollars
    cache_read: Dollars
    cache_write: Dollars
    cache_write_1h: Dollars
    output: Dollars

    def microdollars(self, usage: Usage) -> int:
        """Price of so many tokens, in millionths of a dollar, rounded up."""
        kinds = ("input", "cache_read", "cache_write", "cache_write_1h", "output")
        price = math.fsum(getattr(usage, kind) * getattr(self, kind) for kind in kinds)
        return math.ceil(round(price, 6))

    @property
    def dearest_input(self) -> float:
        """What a token of a prompt can cost at most, whatever the cache makes of it."""
        return max(self.input, self.cache_read, self.cache_write, self.cache_write_1h)


class LongPrompt(Rates):
    above: Annotated[int, Field(gt=0)]
    """Tokens of the prompt, from the cache or not."""


class Price(Rates):
    """What a model costs."""

    long_prompt: LongPrompt | None = None
    """Rates of all tokens of a request with a longer prompt."""

    def of(self, usage: Usage) -> int:
        """Price of a call, in millionths of a dollar."""
        return self.rates(usage.prompt).microdollars(usage)

    def at_most(self, prompt: int, output: int) -> int:
        """What a call can cost with so many tokens, in millionths of a dollar: nothing of the prompt comes out of the cache, and all
        of it is written there."""
        rates = self.rates(prompt)
        return math.ceil(round(prompt * rates.dearest_input + output * rates.output, 6))

    def rates(self, prompt: int) -> Rates:
        return self.long_prompt if self.long_prompt is not None and prompt > self.long_prompt.above else self


class Prices(BaseModel):
    """Prices of all models that may be asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    as_of: date
    """When somebody last looked."""
    models: Mapping[str, Price]

    @classmethod
    def load(cls, path: Path | None = None) -> "Prices":
        """The built-in table, and above it that of a lab.

        Raises:
            BadInput: a table cannot be read; names file and key.
        """
        built_in = cls.read(BUILT_IN)
        if path is None:
            return built_in
        own = cls.read(path)
        return cls(as_of=own.as_of, models={**built_in.models, **own.models})

    @classmethod
    def read(cls, path: Path) -> "Prices":
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror}); it says what models cost") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: not TOML: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise BadInput(f"{path}: {key}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None

    def price(self, model: str) -> Price:
        """Raises BadInput for a model without a price."""
        if model not in self.models:
            raise BadInput(
                f"nobody knows what {model} costs: give its prices in a file that [money] prices names (agents/prices.toml shows how; "
                f"0 for a server of your own). Priced are: {', '.join(sorted(self.models))}"
            )
        return self.models[model]
