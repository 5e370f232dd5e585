"""The judge: GPT and GPT-2 in NumPy float64, slow and obvious, sharing no arithmetic with the models it judges.

```python
from gptzoo import reference
out = reference.forward("LMHeadModel", config, weights, input_ids=ids, labels=ids)  # out.loss, out.logits
ids = reference.greedy(config, weights, ids, max_new_tokens=20)
ids = reference.sample(config, weights, ids, max_new_tokens=20, seed=0)
```
"""

from gptzoo.reference._generation import greedy, sample
from gptzoo.reference._heads import forward

__all__ = ["forward", "greedy", "sample"]
