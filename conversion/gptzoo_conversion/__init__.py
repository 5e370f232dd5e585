"""Checkpoints of GPT and GPT-2 in every format, to any other, bit for bit, without a framework."""

from gptzoo_conversion.convert import Conversion, convert
from gptzoo_conversion.formats import FORMATS
from gptzoo_conversion.opening import ForeignCheckpoint, open_foreign

__all__ = ["FORMATS", "Conversion", "ForeignCheckpoint", "convert", "open_foreign"]
