"""Tiny tokenizers with chat templates: one that writes tool calls as Qwen2.5 and Hermes do, and some that do not."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from searchr1.tokenization import HFTokenizer

SYSTEM = (
    "{% if tools %}<|im_start|>system\n"
    "Tools:{% for tool in tools %} {{ tool | tojson }}{% endfor %}<|im_end|>\n{% endif %}"
)
CALLS = (
    '{% for call in m.tool_calls or [] %}<tool_call>\n{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
)
TURNS = (
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}CALLS<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATE = SYSTEM + TURNS.replace("CALLS", CALLS)
HEAD = "<|im_end|>\n<|im_start|>user\n<tool_response>\n"
TAIL = "\n</tool_response><|im_end|>\n<|im_start|>assistant\n"

NO_TOOLS = TURNS.replace("CALLS", "")
CALLED = "{% if m.tool_calls %}WRITTEN{% endif %}"
OTHERWISE = {
    "calls as functions": TURNS.replace("CALLS", CALLED.replace("WRITTEN", "<tool_call><f=search></tool_call>")),
    "calls without tags": TURNS.replace("CALLS", CALLED.replace("WRITTEN", "{{ m.tool_calls | tojson }}")),
    "calls left out": NO_TOOLS,
    "no such messages": "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('no') }}{% endif %}"
    "{{ m.content }}{% endfor %}",
    "an error of its own": "{{ messages[0].nothing | tojson }}",
}
"""Templates that offer tools (after ``SYSTEM``) and write their calls in another way."""


def chatting(template: str | None = TEMPLATE) -> HFTokenizer:
    """Bytes, and the marks of the template as tokens."""
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.add_tokens([AddedToken(tag, normalized=False) for tag in ("<tool_call>", "</tool_call>")])
    fast.chat_template = template
    return HFTokenizer(fast)
