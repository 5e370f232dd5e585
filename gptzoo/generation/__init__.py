"""What generation means, framework-free; the loops belong to the frameworks."""

from gptzoo.generation._arguments import Arguments, Plan, plan
from gptzoo.generation._sampling import Sampler, noise

__all__ = ["Arguments", "Plan", "Sampler", "noise", "plan"]
