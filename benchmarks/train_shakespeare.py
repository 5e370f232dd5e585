"""Trains the bundled model, gptzoo/shakespeare: tokenizer, weights and model card, from one text file.

    python benchmarks/train_shakespeare.py --text tinyshakespeare.txt --out gptzoo/_bundled/shakespeare

The text is the 1.1 MB of plays of karpathy/char-rnn (public domain). About half an hour on one CPU core.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from gptzoo.config import GPT2Config
from gptzoo.torch import GPT2LMHeadModel

END = "<|endoftext|>"
VOCAB, CONTEXT, BATCH = 1024, 256, 8
HELD_OUT = 0.1  # the last tenth of the text
PROMPT = "Now is the winter of our discontent"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="go on from this checkpoint, of an earlier run on the same text")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    text = args.text.read_text(encoding="utf-8")
    split = int(len(text) * (1 - HELD_OUT))
    tokenizer = train_tokenizer(text[:split])
    train, held_out = (torch.tensor(tokenizer.encode(part).ids) for part in (text[:split], text[split:]))
    model = train_model(train, held_out, args.steps, args.seed, args.init)
    publish(model, tokenizer, held_out, len(text[split:]), args)


def publish(
    model: GPT2LMHeadModel, tokenizer: Tokenizer, held_out: torch.Tensor, characters: int, args: argparse.Namespace
) -> None:
    """Writes the checkpoint in float16, the tokenizer, and a model card that measures what users get."""
    model.to(torch.float16).save_pretrained(args.out)
    tokenizer.save(str(args.out / "tokenizer.json"))
    tokenizer.model.save(str(args.out))
    model = GPT2LMHeadModel.from_pretrained(args.out, dtype="float32")  # rounded to float16
    loss = evaluate(model, held_out)
    write_card(args.out, model, loss, loss * len(held_out) / characters, complete(model, tokenizer), args)


def train_tokenizer(text: str) -> Tokenizer:
    """Byte-level BPE as GPT-2's, with a vocabulary of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.add_special_tokens([END])  # the last id, as in GPT-2
    return tokenizer


def train_model(
    train: torch.Tensor, held_out: torch.Tensor, steps: int, seed: int, init: Path | None = None
) -> GPT2LMHeadModel:
    """Returns the model as it was when its held-out loss was lowest."""
    config = GPT2Config(
        vocab_size=VOCAB, n_positions=CONTEXT, n_embd=160, n_layer=5, n_head=5,
        resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.0, bos_token_id=VOCAB - 1, eos_token_id=VOCAB - 1,
    )  # fmt: skip
    model = GPT2LMHeadModel(config, seed=seed)
    if init:
        model.load_state_dict(GPT2LMHeadModel.from_pretrained(init, dtype="float32").state_dict())
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
    print(f"{model}, {len(train)} tokens to train on, {len(held_out)} held out")
    best, best_state, start = math.inf, model.state_dict(), time.time()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        starts = torch.randint(len(train) - CONTEXT, (BATCH,))
        tokens = torch.stack([train[i : i + CONTEXT] for i in starts])
        loss = model(tokens, labels=tokens, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99 or step == steps - 1:
            current = evaluate(model, held_out)
            print(
                f"step {step + 1}: train {loss.item():.3f}, held out {current:.3f}, {time.time() - start:.0f} s",
                flush=True,
            )
            if current < best:
                best, best_state = current, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best_state)
    return model.eval()


def learning_rate(step: int, steps: int, peak: float = 2e-3, warm_up: int = 100) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def evaluate(model: GPT2LMHeadModel, tokens: torch.Tensor) -> float:
    """Mean loss in nats a token over all of a text, in windows of the context that overlap by half."""
    training = model.training
    model.eval()
    total = count = 0.0
    for start in range(0, len(tokens) - CONTEXT, CONTEXT // 2):
        window = tokens[None, start : start + CONTEXT]
        labels = window.clone()
        if start:
            labels[:, : CONTEXT // 2] = -100  # scored in the window before, here only context
        counted = (labels[:, 1:] != -100).sum().item()
        total += model(window, labels=labels, use_cache=False).loss.item() * counted
        count += counted
    model.train(training)
    return total / count


def complete(model: GPT2LMHeadModel, tokenizer: Tokenizer) -> str:
    ids = torch.tensor([tokenizer.encode(PROMPT).ids])
    return tokenizer.decode(model.generate(ids, 60)[0].tolist())


def write_card(
    out: Path, model: GPT2LMHeadModel, loss: float, per_character: float, sample: str, args: argparse.Namespace
) -> None:
    config = model.config
    (out / "README.md").write_text(f"""# gptzoo/shakespeare

A small GPT-2, trained by gptzoo from scratch, that ships in the wheel so that every check runs on real weights.

| | |
|---|---|
| parameters | {model.num_parameters():,} |
| shape | {config.n_layer} layers, {config.n_head} heads, width {config.n_embd}, {config.n_positions} positions |
| storage | float16 |
| tokenizer | byte-level BPE, {config.vocab_size} tokens, trained on the same text |
| text | tinyshakespeare (karpathy/char-rnn), 1.1 MB of plays, public domain; the last tenth held out |
| held-out loss | {loss:.3f} nats a token (perplexity {math.exp(loss):.1f}), {per_character:.3f} nats a character |

Made with `benchmarks/train_shakespeare.py`:

    {command(args)}

It writes like the plays and means nothing by it. Greedy completion of `{PROMPT!r}`:

```
{sample}
```
""")


def command(args: argparse.Namespace) -> str:
    """The command line of a run, and before it that of the run that it went on from."""
    run = "python benchmarks/train_shakespeare.py --text tinyshakespeare.txt"
    last = f"{run} --out {args.out.name} --steps {args.steps} --seed {args.seed}"
    return f"{run} --out {args.init.name}\n    {last} --init {args.init.name}" if args.init else last


if __name__ == "__main__":
    main()
