"""Inferometer measures LLM inference serving, and says how far the measurement can be trusted."""
