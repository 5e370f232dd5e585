"""What generation means, framework-free; the loops belong to the frameworks."""

from gptzoo.generation._arguments import Arguments, Plan, plan
from gptzoo.generation._others import take_prompt
from gptzoo.generation._sampling import Sampler, noise
from gptzoo.generation._seed import set_seed

__all__ = ["Arguments", "Plan", "Sampler", "noise", "plan", "set_seed", "take_prompt"]
