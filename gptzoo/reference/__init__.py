"""The judge: GPT and GPT-2 in NumPy float64, slow and obvious, sharing no arithmetic with the models it judges.

```python
from gptzoo import reference
out = reference.forward("LMHeadModel", config, weights, input_ids=ids, labels=ids)  # out.loss, out.logits
ids = reference.greedy(config, weights, ids, max_new_tokens=20)
ids = reference.sample(config, weights, ids, max_new_tokens=20, seed=0)
ids, scores = reference.beam_search(config, weights, ids, max_new_tokens=20, num_beams=4)
log_probs = reference.score(config, weights, ids[0])
```
"""

from gptzoo.reference._beams import beam_search
from gptzoo.reference._generation import greedy, sample
from gptzoo.reference._heads import forward
from gptzoo.reference._scoring import score

__all__ = ["beam_search", "forward", "greedy", "sample", "score"]
