"""The protocols that a server under test may speak: one file each, all of them in one table."""

from inferometer.wire.dialects import (
    anthropic_messages,
    llamacpp,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
    tgi,
)
from inferometer.wire.dialects.dialect import Ask, Dialect

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        openai_chat.DIALECT,
        openai_completions.DIALECT,
        openai_responses.DIALECT,
        anthropic_messages.DIALECT,
        tgi.DIALECT,
        ollama.DIALECT,
        llamacpp.DIALECT,
    )
}

__all__ = ["DIALECTS", "Ask", "Dialect"]
