"""The line to a language model: one request and its answer, paid for, written down, and tried again while it is worth while.

Whatever can go wrong with a call has one of three ends:

* it may go better later (overload, rate limit, lost connection, no answer in time, an answer that is no JSON): tried again with
  back-off and jitter, for as long as the server asks for, up to the role's `patience_s`; then `Unavailable`, and the role pauses;
* it never will (wrong key, unknown model, a request that the API refuses): `BadInput`, which waits for a person;
* there is no money for it: `Broke` of the purse, or `TooDear` where a single call could cost more than one may.
"""

import asyncio
import json
import math
import os
import time
from typing import Any, NamedTuple

import anthropic
import httpx2
from anthropic.types import Message
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

from agents import transcript
from agents.fence import one_line
from agents.minds.desk import Desk, NoKey, new_id
from agents.minds.pause import Rejected, Unavailable
from agents.settings import ModelSettings
from ledger.purse import Purse
from records import BadInput, Usage

FIRST_WAIT_S = 1.0
PROBE_TIMEOUT_S = 10.0
SPEND_LIMIT_WAIT_S = 1800.0
"""A spending limit of the account ends with the month, or when somebody raises it."""
NOT_COUNTED = ("max_tokens", "extra_body")
"""Parameters of a call that the counter does not take."""
OVERHEAD_TOKENS = 1000
"""Of a prompt beside its text: what the API adds for tools (their system prompt) and roles."""


class TooDear(BadInput):
    """A single call could cost more than the org file allows for one."""


class Trouble(Exception):
    """A call that failed and may go better next time."""

    def __init__(self, kind: str, message: str, *, sent: bool, retry_after_s: float | None = None, last: bool = False):
        super().__init__(message)
        self.kind = kind
        self.sent = sent
        """Whether the request may have reached a model, and be billed."""
        self.retry_after_s = retry_after_s
        self.last = last
        """Whether it would be a waste to try again soon."""


class Request(NamedTuple):
    """One call, in the words of the Messages API."""

    system: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]

    @property
    def size_tokens(self) -> int:
        """What it has at most. No tokenizer makes more tokens of a text than it has bytes."""
        return len(json.dumps(self, ensure_ascii=False).encode(errors="replace")) + OVERHEAD_TOKENS


class Line:
    """The line of one task. `async with` opens and closes it.

    Args:
        settings: the role's front matter.
        desk: whose money it is.

    Raises:
        BadInput: a model without a price; NoKey.
    """

    def __init__(self, settings: ModelSettings, desk: Desk):
        self.settings = settings
        self.desk = desk
        self.model = settings.model or ""
        self.price = desk.prices.price(self.model)
        self.key = read_key(settings, desk)

    async def __aenter__(self) -> "Line":
        # Retries are ours, since each of them is paid for and written down.
        self.client = anthropic.AsyncAnthropic(api_key=self.key, base_url=self.settings.base_url, max_retries=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def probe(self) -> bool:
        """Ask for nothing that costs. Returns whether anybody answers.

        Raises:
            Rejected: the API does not take the key, or does not know the model.
        """
        try:
            hello: Any = [{"role": "user", "content": "Hello."}]
            await self.client.messages.count_tokens(model=self.model, messages=hello, timeout=PROBE_TIMEOUT_S)
        except anthropic.APIStatusError as error:
            unknown = error.status_code == 404 and self.model in str(error.api_message)
            if unknown or error.status_code in (401, 403):
                raise of_status(self.model, error) from None
            return error.status_code < 500
        except (anthropic.AnthropicError, httpx2.HTTPError, ValueError):
            return False
        return True

    async def refuse_to_call_into_the_dark(self, purse: Purse) -> None:
        """After a call that was lost nobody knows whether it has to be paid, so it counts as paid. Another one is only made when somebody
        answers a question that costs nothing: an outage costs one call of each seat, however long it is. Raises Trouble."""
        last = purse.last(self.model)
        if last is not None and last.status != "ok" and last.microdollars and not await self.probe():
            raise Trouble("connection", "nobody answers", sent=False)

    async def ask(self, request: Request) -> Message:
        """The model's answer.

        Raises:
            Unavailable, BadInput, TooDear, Broke: see the top of this file.
        """
        policy = AsyncRetrying(
            retry=retry_if_exception_type(Trouble),
            stop=self.should_stop,
            wait=self.wait,
            sleep=asyncio.sleep,
            reraise=True,
        )
        try:
            return await policy(self.attempt, request)
        except Trouble as trouble:
            wait_s = trouble.retry_after_s or self.settings.longest_wait_s
            raise Unavailable(f"{self.model}: {trouble}", wait_s) from None

    def should_stop(self, state: RetryCallState) -> bool:
        trouble = state.outcome and state.outcome.exception()
        if isinstance(trouble, Trouble) and (trouble.last or (trouble.retry_after_s or 0) > self.settings.patience_s):
            return True
        return stop_after_delay(self.settings.patience_s)(state)

    def wait(self, state: RetryCallState) -> float:
        """Seconds until the next attempt: what the server asks for, or twice as long each time; never the same for two seats."""
        trouble = state.outcome and state.outcome.exception()
        asked = trouble.retry_after_s if isinstance(trouble, Trouble) else None
        longest = self.settings.longest_wait_s
        first = min(FIRST_WAIT_S, longest)
        backoff = wait_exponential(multiplier=first, max=longest) + wait_random(0, first)
        return backoff(state) if asked is None else asked + min(backoff(state), 1.0)

    async def attempt(self, request: Request) -> Message:
        """One call: money is set aside, the call is made, what it cost is booked. Raises Trouble, BadInput, TooDear, Broke."""
        desk = self.desk
        if desk.purse is None:
            raise BadInput(f"{self.model} cannot be asked here: no money is set aside for it")
        await self.refuse_to_call_into_the_dark(desk.purse)
        most = self.price.at_most(request.size_tokens, self.settings.max_tokens)
        if most > desk.call_microdollars:
            raise TooDear(
                f"a call of the {desk.role} could cost {most / 1e6:.2f} dollars, more than the {desk.call_microdollars / 1e6:.2f} of "
                "money.call_usd: raise that, or lower max_tokens or the length of the prompt"
            )
        hold = desk.purse.reserve(new_id(), desk.talk, desk.role, self.model, desk.experiment, most)
        began = time.monotonic()
        exchange: dict[str, Any] = {"request": self.body(request)}
        # What is booked if this process is told to stop meanwhile.
        status, usage, microdollars = "cancelled", Usage(), most
        try:
            message = await self.send(request)
            status, usage = "ok", usage_of(message)
            microdollars = self.price.of(usage)
            exchange["reply"] = message.model_dump(mode="json", exclude_none=True)
            return message
        except Trouble as trouble:
            status, microdollars = trouble.kind, most if trouble.sent else 0
            exchange["error"] = str(trouble)
            raise
        except BadInput as refused:
            status, microdollars = "refused", 0
            exchange["error"] = str(refused)
            raise
        finally:
            sha256 = ""
            if desk.transcripts is not None:
                sha256 = transcript.write(desk.transcripts, hold.call, exchange, [self.key])
            seconds = round(time.monotonic() - began, 3)
            desk.purse.book(hold, hold.ended(status, microdollars, usage, seconds, sha256))

    def body(self, request: Request) -> dict[str, Any]:
        """The call's parameters."""
        body: dict[str, Any] = {"model": self.model, "max_tokens": self.settings.max_tokens, **request._asdict()}
        if self.settings.effort is not None:
            body["output_config"] = {"effort": self.settings.effort}
        if self.settings.temperature is not None:
            body["extra_body"] = {"temperature": self.settings.temperature}  # the SDK has no word for it any more
        return body

    async def send(self, request: Request) -> Message:
        """The bare call, with every way in which it can fail told apart. Raises Trouble or Rejected."""
        timeout_s = self.settings.timeout_s
        try:
            async with asyncio.timeout(timeout_s):  # of the whole answer: the SDK's own counts from byte to byte
                message: object = await self.client.messages.create(**self.body(request), timeout=timeout_s)
        except (TimeoutError, anthropic.APITimeoutError) as error:
            sent = not isinstance(error.__cause__, httpx2.ConnectTimeout)
            raise Trouble("timeout", f"no answer within {timeout_s:g} s", sent=sent) from None
        except anthropic.APIConnectionError as error:
            sent, said = not isinstance(error.__cause__, httpx2.ConnectError), one_line(str(error.__cause__ or error))
            raise Trouble("connection", f"no connection ({said})", sent=sent) from None
        except anthropic.APIStatusError as error:
            raise of_status(self.model, error) from None
        except (anthropic.AnthropicError, httpx2.HTTPError, json.JSONDecodeError, ValueError) as error:
            raise Trouble("malformed", f"an answer that cannot be read ({one_line(str(error))})", sent=True) from None
        if not isinstance(message, Message) or not isinstance(message.content, list) or message.usage is None:
            raise Trouble("malformed", "an answer that is no message", sent=True)
        return message

    async def count(self, request: Request) -> int:
        """Tokens of a request, by the API's own counter, which costs nothing.

        Raises:
            BadInput: it refuses the request, or the key.
            Unavailable: it does not answer; nothing is tried again.
        """
        settings = {name: value for name, value in self.body(request).items() if name not in NOT_COUNTED}
        try:
            counted = await self.client.messages.count_tokens(**settings, timeout=self.settings.timeout_s)
        except anthropic.APIStatusError as error:
            failed = of_status(self.model, error)
            if isinstance(failed, BadInput):
                raise failed from None
            raise Unavailable(f"{self.model}: {failed}", self.settings.longest_wait_s) from None
        except (anthropic.AnthropicError, httpx2.HTTPError, ValueError) as error:
            said = one_line(str(error.__cause__ or error))
            raise Unavailable(
                f"{self.model}: nobody counts the tokens ({said})", self.settings.longest_wait_s
            ) from None
        return counted.input_tokens


def of_status(model: str, error: anthropic.APIStatusError) -> Trouble | Rejected:
    """What an HTTP status means. Nothing that failed with one was billed."""
    said = one_line(error.api_message or str(error))
    if is_spend_limit(error, said):
        why = f"the account's own spending limit is reached ({said})"
        return Trouble("spend_limit", why, sent=False, retry_after_s=SPEND_LIMIT_WAIT_S, last=True)
    if error.status_code == 429:
        return Trouble("rate_limit", f"rate limit ({said})", sent=False, retry_after_s=retry_after(error))
    if error.status_code == 529:
        return Trouble("overloaded", f"overloaded ({said})", sent=False, retry_after_s=retry_after(error))
    if error.status_code >= 500 or error.status_code in (408, 409):
        return Trouble("server_error", f"error {error.status_code} of the server ({said})", sent=False, retry_after_s=retry_after(error))  # fmt: skip
    return Rejected(f"{model}: the API refuses the request with {error.status_code}: {said}")


def is_spend_limit(error: anthropic.APIStatusError, said: str) -> bool:
    """Whether the account may spend no more: by Anthropic's limit, its own, or for want of credit."""
    by_code = error.error_code == "enforced_spend_limit_reached" or error.status_code == 402
    return by_code or (error.status_code == 400 and "usage limits" in said)


def retry_after(error: anthropic.APIStatusError) -> float | None:
    """Seconds that the server asks to wait. Nothing if it does not say, or says what is no time."""
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def usage_of(message: Message) -> Usage:
    """What the API counted."""
    usage = message.usage
    written, kept = usage.cache_creation_input_tokens or 0, usage.cache_creation
    hour = kept.ephemeral_1h_input_tokens if kept is not None else 0
    return Usage(
        input=usage.input_tokens,
        cache_read=usage.cache_read_input_tokens or 0,
        cache_write=max(0, written - hour),
        cache_write_1h=hour,
        output=usage.output_tokens,
    )


def read_key(settings: ModelSettings, desk: Desk) -> str:
    """The API key: of the environment, or of a file. Raises NoKey if there is none, and BadInput for what can be no key."""
    if settings.key_file is not None:
        path = desk.lab / settings.key_file.expanduser()
        try:
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NoKey(f"{path}: the API key cannot be read from it ({one_line(str(error))})") from None
    else:
        key = (desk.keys.get(settings.key) or os.environ.get(settings.key, "")).strip()
    if key and key.isascii() and key.isprintable():
        return key
    if key:
        raise BadInput("the API key has characters that no key has: was the right file or variable given?")
    where = f"{settings.key_file} is empty" if settings.key_file else f"{settings.key} is not set in the environment"
    raise NoKey(f"no API key: {where}. Export it, or name a file with `key_file:`; a server of your own takes any word")
