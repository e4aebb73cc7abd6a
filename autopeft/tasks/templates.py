"""Chat templates of our own, for tokenizers that bring none, and templates from files.

A template is Jinja, in the sandbox in which transformers renders a tokenizer's own. It is text of the data: the study
keeps it, and it is part of the data's hash. ``{% generation %}`` marks what loss is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from autopeft.errors import TaskError

_BEGIN = "{{- bos_token if bos_token is defined else '' }}"
_TOOLS = """\
{%- if tools %}
{{- OPEN ~ 'system' ~ MIDDLE }}
{{- 'Tools that may be called, one JSON schema a line; a call is {"name": …, "arguments": {…}}:' }}
{%- for tool in tools %}{{- '\\n' ~ (tool | tojson) }}{%- endfor %}
{{- CLOSE }}
{%- endif %}"""
_TURNS = """\
{%- for message in messages %}
{{- OPEN ~ message.role ~ MIDDLE }}
{%- if message.role == 'assistant' %}
{%- generation %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{{- ('\\n' if message.content or not loop.first else '') ~ (call.function | tojson) }}
{%- endfor %}
{{- END }}
{%- endgeneration %}
{{- AFTER }}
{%- else %}
{{- message.content ~ CLOSE }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- OPEN ~ 'assistant' ~ MIDDLE }}{%- endif %}"""


def _template(opening: str, middle: str, end: str, closing: str, after: str) -> str:
    """A template that sets ``opening``, the role and ``middle`` before a turn; assistant turns end with ``end``."""
    parts = {"OPEN": opening, "MIDDLE": middle, "END": end, "CLOSE": closing, "AFTER": after}
    sets = "".join(f"{{%- set {name} = {value} %}}\n" for name, value in parts.items())
    return sets + _BEGIN + "\n" + _TOOLS + "\n" + _TURNS


CHAT_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {
        "chatml": _template("'<|im_start|>'", r"'\n'", "'<|im_end|>'", r"'<|im_end|>\n'", r"'\n'"),
        "headings": _template("'### '", r"':\n'", "eos_token", r"'\n\n'", r"'\n\n'"),
        "plain": _template("''", "': '", "eos_token", r"'\n'", r"'\n'"),
    }
)
"""``chatml`` for tokenizers that have its tokens; the others end an assistant turn with the tokenizer's end token."""


def read_template(given: str) -> str:
    """What a study keeps of ``--chat-template``: the name of a built-in one, or the text of a template.

    Args:
        given: A name, a template's text, or the path of a file.

    Raises:
        TaskError: If it is none of these.
    """
    if given in CHAT_TEMPLATES or _is_template(given):
        return given
    file = Path(given).expanduser()
    known = ", ".join(CHAT_TEMPLATES)
    if not file.is_file():
        raise TaskError(f"chat template {given!r}: expected one of {known}, or a file with a Jinja template: name one")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"chat template {given}: cannot be read as text: {error}; expected UTF-8") from error
    if not _is_template(text):
        raise TaskError(f"chat template {given}: it holds no Jinja ({{{{ … }}}} or {{% … %}}); expected a template")
    return text


def template_text(kept: str) -> str:
    """The text of what ``read_template`` keeps."""
    return CHAT_TEMPLATES.get(kept, kept)


def _is_template(text: str) -> bool:
    return "{{" in text or "{%" in text
