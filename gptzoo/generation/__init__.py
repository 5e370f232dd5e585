"""What generation means, framework-free; the loops belong to the frameworks."""

from gptzoo.generation._arguments import Plan, plan, resolve_options
from gptzoo.generation._config import GenerationConfig
from gptzoo.generation._generate import generate
from gptzoo.generation._others import take_prompt
from gptzoo.generation._output import GenerateOutput
from gptzoo.generation._sampling import draw, noise
from gptzoo.generation._seed import set_seed
from gptzoo.generation._stop_strings import StopStrings
from gptzoo.generation._stream import astream, stream
from gptzoo.generation._streaming import (
    AsyncTextIteratorStreamer,
    StreamClosed,
    TextIteratorStreamer,
    TextStreamer,
    streaming,
)

__all__ = [
    "AsyncTextIteratorStreamer",
    "GenerateOutput",
    "GenerationConfig",
    "Plan",
    "StopStrings",
    "StreamClosed",
    "TextIteratorStreamer",
    "TextStreamer",
    "astream",
    "draw",
    "generate",
    "noise",
    "plan",
    "resolve_options",
    "set_seed",
    "stream",
    "streaming",
    "take_prompt",
]
