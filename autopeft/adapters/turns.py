"""Conversations as text by a chat template, and where in it the assistant speaks.

Where a template marks that itself (``{% generation %}``), its marks count. Else a turn begins where the rendering of
what stands before it ends, with the header that asks for an answer, and ends where the rendering up to it ends; white
space behind an end-of-turn token is no part of it. A template that lays the beginning of a conversation out otherwise
when more follows is found out by that and refused, but for one thing that reasoning models' templates do: what stands
before the text of the last turn alone (an empty thought) may be missing from the same turn when it is not the last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from autopeft.errors import TaskError

TODAY = "26 Jul 2024"
"""What templates that print a date are given, so that the same rows are the same text on every day; Llama 3's own."""

MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
OTHER_TEMPLATE = (
    "give another template with --chat-template, one that marks turns with {% generation %} if there is one"
)

Message = Mapping[str, Any]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Turns:
    """A conversation as text.

    Attributes:
        text: All of it.
        spans: Beginning and end of each assistant turn that is learned, in characters; the last turn among them.
    """

    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A tokenizer's way of writing conversations.

    Attributes:
        tokenizer: Brings special tokens, and the template where none is given.
        given: Text of a template; None for the tokenizer's own.
    """

    tokenizer: PreTrainedTokenizerBase
    given: str | None = None

    @property
    def text(self) -> str:
        """All that decides how a conversation is laid out."""
        own = self.given or self.tokenizer.chat_template
        named = own if isinstance(own, str) else "\n".join(f"{name}: {text}" for name, text in sorted(own.items()))
        return f"{named}\n{self.tokenizer.special_tokens_map}\n{TODAY}"

    def lay_out(self, chats: Sequence[str], numbers: Sequence[int] | None = None) -> list[Turns]:
        """Conversations as text.

        Args:
            chats: Each as JSON: ``messages``, and ``tools`` where it has some.
            numbers: What a message calls each row; None: counted from 1.

        Raises:
            TaskError: As ``turns``, with the number of the row.
        """
        laid_out = []
        for chat, number in zip(chats, numbers or range(1, len(chats) + 1), strict=True):
            conversation = json.loads(chat)
            try:
                laid_out.append(self.turns(conversation["messages"], conversation.get("tools")))
            except TaskError as error:
                begins = conversation["messages"][0]["content"]
                raise TaskError(f"row {number} ({begins!r:.40}): {error}") from error
        return laid_out

    def turns(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> Turns:
        """A conversation, whose last message is the assistant's, as text.

        Raises:
            TaskError: If the template refuses it, or where the assistant speaks cannot be told.
        """
        jinja = self.tokenizer.get_chat_template(self.given, list(tools) if tools else None)
        speaks = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if MARKED.search(jinja):
            text, spans = self._marked(jinja, messages, tools)
        else:
            text = self._render(jinja, messages, tools)
            spans = [self._span(jinja, text, messages, index, tools) for index in speaks]
        learned = [bool(messages[index].get("weight", 1)) for index in speaks]
        if any(start >= end for start, end in spans):
            raise TaskError(f"the chat template leaves an assistant turn out; expected its text: {OTHER_TEMPLATE}")
        if not spans or (len(spans) != len(speaks) and not all(learned)):
            raise TaskError(
                f"the chat template marks {len(spans)} turns of {len(speaks)} with {{% generation %}}; expected one "
                f"for each assistant turn: {OTHER_TEMPLATE}"
            )
        if not learned[-1]:
            raise TaskError("the last assistant turn has weight 0; expected one that is learned: end the row before it")
        return Turns(text, tuple(spans if all(learned) else compress(spans, learned)))

    def _render(self, jinja: str, messages: Sequence[Message], tools: Any, asking: bool = False) -> str:
        with _explained():
            rendered, _ = render_jinja_template(
                [[dict(message) for message in messages]],
                tools=tools,
                chat_template=jinja,
                add_generation_prompt=asking,
                **self._names(),
            )
        return str(rendered[0])

    def _marked(self, jinja: str, messages: Sequence[Message], tools: Any) -> tuple[str, list[Span]]:
        with _explained():
            rendered, marks = render_jinja_template(
                [[dict(message) for message in messages]],
                tools=tools,
                chat_template=jinja,
                return_assistant_tokens_mask=True,
                **self._names(),
            )
        return str(rendered[0]), [(int(start), int(end)) for start, end in marks[0]]

    def _names(self) -> dict[str, Any]:
        """What a template may use beside the messages."""
        return {**self.tokenizer.special_tokens_map, "date_string": TODAY}

    def _span(self, jinja: str, text: str, messages: Sequence[Message], index: int, tools: Any) -> Span:
        """Where in ``text``, all of ``messages``, the assistant turn ``index`` stands."""
        asked = self._render(jinja, messages[:index], tools, asking=True)
        start = _shared(asked, text)
        if start < len(asked) and not text[:start].startswith(self._render(jinja, messages[:index], tools)):
            raise TaskError(
                f"the chat template writes the messages before message {index + 1} in another way when more follow "
                f"(…{text[max(0, start - 20) : start + 20]!r}…); expected the same text: {OTHER_TEMPLATE}, or end the "
                f"row earlier"
            )
        is_last = index == len(messages) - 1
        through = text if is_last else self._render(jinja, messages[: index + 1], tools)
        if text.startswith(through):
            return start, self._end(text, start, len(through))
        turn = through[_shared(asked, through) :]
        for skipped in range(max(0, turn.find(_anchor(messages[index]))) + 1):
            if turn[skipped:].strip() and text.startswith(turn[skipped:], start):
                return start, self._end(text, start, start + len(turn) - skipped)
        raise TaskError(
            f"the chat template writes message {index + 1}, the assistant's, in another way when more follow; "
            f"expected the same text: {OTHER_TEMPLATE}, or end the row there"
        )

    def _end(self, text: str, start: int, end: int) -> int:
        """``end`` without the white space that stands behind a token of the tokenizer's own making."""
        said = text[start:end].rstrip()
        added = tuple(token for token in self.tokenizer.get_added_vocab() if token.strip())
        return start + len(said) if added and said.endswith(added) else end


def _anchor(message: Message) -> str:
    """What a turn says first of all that it has to say."""
    if content := str(message["content"]).strip():
        return content
    return str(message["tool_calls"][0]["function"]["name"])


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    shortest = min(len(one), len(other))
    return next((index for index in range(shortest) if one[index] != other[index]), shortest)


@contextmanager
def _explained() -> Iterator[None]:
    """Turns what a template raises into one clear line."""
    try:
        yield
    except (TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
        raise TaskError(
            f"the chat template does not take it: {str(error) or type(error).__name__}; correct the row, or give "
            f"another template with --chat-template"
        ) from error
