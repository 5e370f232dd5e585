"""Checkpoints of GPT and GPT-2 in every format, to any other, bit for bit, without a framework."""
