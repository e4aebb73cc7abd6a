"""Rows that are conversations: ``messages`` of role and content, or ShareGPT's ``conversations`` of from and value.

Every row becomes the messages of the first form, as JSON, with the tools that stand beside them; how they are laid out
as text is the chat template's work, and no tokenizer is known here. What follows the last assistant turn is left out:
nothing is learned from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from autopeft.errors import TaskError
from autopeft.tasks.columns import differing_column, first_known, rows_named
from autopeft.tasks.labels import Vocabulary
from autopeft.tasks.tables import Table
from autopeft.tasks.task import Split, TaskSpec

NAMES = ("messages", "conversations", "conversation", "chat", "dialogue", "dialog")
TOOLS, SYSTEMS = ("tools", "functions"), ("system", "system_prompt")
CALLS = ("function_call", "tool_call")
ROLES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("system", "developer"), "system"),
        **dict.fromkeys(("user", "human"), "user"),
        **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot", *CALLS), "assistant"),
        **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
    }
)
"""What each form calls a speaker, and what chat templates call it."""

HEADER_WORDS = 5
"""That stand around a message: tokens of its own, the speaker, line breaks."""

ADVICE = "correct or remove the rows"

Message = dict[str, Any]


class _UnusableError(Exception):
    """Why a row cannot be used."""


def find_chat_column(table: Table, named: str | None = None) -> str | None:
    """The column of conversations: a list in its first row that has anything; None without one.

    Args:
        table: The training rows.
        named: What the user calls the column of the text; any other is not looked at then.
    """
    column = named if named in table.columns else first_known(NAMES, table) if named is None else None
    if column is None:
        return None
    held = next((value for value in table.columns[column] if value is not None), None)
    return column if isinstance(held, list) and all(isinstance(entry, Mapping) for entry in held) else None


@dataclass(frozen=True, slots=True)
class ChatReading:
    """How tables of conversations are turned into rows.

    Attributes:
        column: Of the conversations.
        tools: Column of the tools that a conversation may use, or None.
        system: Column of a text that stands before the conversation, or None.
    """

    column: str
    tools: str | None = None
    system: str | None = None

    @classmethod
    def of(cls, spec: TaskSpec, train: Table) -> ChatReading | None:
        """The reading that the training rows call for; None if they hold no conversations."""
        column = find_chat_column(train, spec.text)
        return (column and cls(column, first_known(TOOLS, train), first_known(SYSTEMS, train))) or None

    @property
    def vocabulary(self) -> Vocabulary:
        """No classes."""
        return Vocabulary(())

    @property
    def label(self) -> str:
        """Column of the conversations, the answers among them."""
        return self.column

    @property
    def note(self) -> str:
        """The columns."""
        named = {"conversation": self.column, "tools": self.tools, "system": self.system}
        return f"columns: {', '.join(f'{role}={column}' for role, column in named.items() if column)}"

    def examples(self, table: Table, held: frozenset[int] | None = None) -> Split:
        """The rows of ``table``: texts are what is said before the last assistant turn, answers what that says.

        Raises:
            TaskError: If the column is missing, or a row is no conversation that can be learned from; with rows.
        """
        if self.column not in table.columns:
            raise differing_column(self.column, table)
        chats, bad = [], {}
        for row, value in enumerate(table.columns[self.column]):
            try:
                chats.append(self._chat(table, row, value))
            except _UnusableError as error:
                bad[row + 1] = str(error)
        if bad:
            first = next(iter(bad))
            raise TaskError(f"{rows_named(list(bad))} of {table.origin} cannot be used; row {first}: {bad[first]}")
        texts = tuple("\n".join(map(said, chat["messages"][:-1])) for chat in chats)
        answers = tuple(said(chat["messages"][-1]) for chat in chats)
        plain = tuple(json.dumps(chat, ensure_ascii=False) for chat in chats)
        numbers = tuple(range(1, len(chats) + 1))
        return Split(texts, None, (0,) * len(chats), answers, chats=plain, numbers=numbers)

    def require_trainable(self, train: Split, origin: str) -> None:
        """Nothing: any conversation can be learned."""

    def _chat(self, table: Table, row: int, value: object) -> dict[str, Any]:
        messages = _messages(value, exact=table.origin.endswith((".jsonl", ".json")))
        if self.system and (text := table.columns[self.system][row]) and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": str(text)}, *messages]
        tools = _tools(table.columns[self.tools][row]) if self.tools else None
        return {"messages": messages} | ({"tools": tools} if tools else {})


def said(message: Mapping[str, Any]) -> str:
    """The text of a message; of tool calls alone their JSON."""
    return str(message["content"]) or json.dumps(message.get("tool_calls", []), ensure_ascii=False)


def layout_words(chat: str) -> int:
    """About as many words as a template adds to a conversation in JSON: around each message, and of its tools."""
    conversation = json.loads(chat)
    tools = json.dumps(conversation.get("tools", ""), ensure_ascii=False)
    return HEADER_WORDS * len(conversation["messages"]) + 2 * len(tools.split())


def _messages(value: object, exact: bool) -> list[Message]:
    """The messages of a row up to its last assistant turn; ``exact``: a null is one, and no filled-in field."""
    if not isinstance(value, list) or not value:
        raise _UnusableError(f"got {value!r:.60}; expected a list of messages with role and content: {ADVICE}")
    messages = [_message(entry, number, exact) for number, entry in enumerate(value, 1)]
    spoken = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not spoken:
        raise _UnusableError(f"it has no assistant turn, so nothing is learned from it; expected one: {ADVICE}")
    return messages[: spoken[-1] + 1]


def _message(entry: object, number: int, exact: bool) -> Message:
    if not isinstance(entry, Mapping):
        raise _UnusableError(f"message {number} is {entry!r:.60}; expected an object with role and content: {ADVICE}")
    given = {key: value for key, value in entry.items() if value is not None}
    name = given.pop("role", None) or given.pop("from", None)
    if name is None:
        keys = ", ".join(map(str, given)) or "none"
        raise _UnusableError(f"message {number} has no role (its keys: {keys}); expected role or from: {ADVICE}")
    if (role := ROLES.get(str(name).lower())) is None:
        raise _UnusableError(f"message {number} has the role {name!r}; expected one of {', '.join(ROLES)}: {ADVICE}")
    content = _content(given.pop("content", given.pop("value", "")), number)
    if str(name).lower() in CALLS:
        given["tool_calls"], content = [_call(content, number)], ""
    elif legacy := given.pop("function_call", None):
        given["tool_calls"] = [legacy]
    if calls := given.pop("tool_calls", None):
        given["tool_calls"] = [_call(call, number) for call in (calls if isinstance(calls, list) else [calls])]
    if not content.strip() and not calls and "tool_calls" not in given and role != "tool":
        raise _UnusableError(f"message {number} ({role}) is empty; expected a text or a tool call: {ADVICE}")
    message = {"role": role, "content": content, **given}
    return message if exact else {key: _without_nulls(value) for key, value in message.items()}


def _content(value: object, number: int) -> str:
    """The text of a message, which may come in parts of the kind ``text``."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    if all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in parts):
        return "".join(part["text"] for part in parts if isinstance(part, Mapping))
    raise _UnusableError(f"message {number} holds {value!r:.60}; expected a text (images are not read): {ADVICE}")


def _call(value: object, number: int) -> Message:
    """A tool call as ``{type, function: {name, arguments}}``, its arguments as an object where they are one."""
    given = _read_json(value) if isinstance(value, str) else value
    if not isinstance(given, Mapping):
        raise _UnusableError(f"message {number}: the tool call is {value!r:.60}; expected name and arguments: {ADVICE}")
    function = given.get("function", given)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise _UnusableError(f"message {number}: the tool call {value!r:.60} has no name; expected one: {ADVICE}")
    arguments = function.get("arguments", function.get("parameters", {}))
    read = _read_json(arguments) if isinstance(arguments, str) else arguments
    called = {"name": function["name"], "arguments": read if isinstance(read, Mapping) else arguments}
    return {**({"id": given["id"]} if given.get("id") else {}), "type": "function", "function": called}


def _tools(value: object) -> list[Any] | None:
    tools = _read_json(value) if isinstance(value, str) else value
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise _UnusableError(f"its tools are {value!r:.60}; expected a list of JSON schemas: {ADVICE}")
    return [tool if "function" in tool else {"type": "function", "function": dict(tool)} for tool in tools]


def _read_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _without_nulls(value: Any) -> Any:
    """``value`` without the fields that a table of one type for all rows has filled in."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
