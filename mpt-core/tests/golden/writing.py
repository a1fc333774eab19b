"""What the two makers of golden cases share: drawn weights, inputs, and files."""

import json
from importlib.metadata import version
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
SEED = 1
VOCAB, CONTEXT = 32, 16

# How much better than the second the best id of a greedy text is at least: well beyond what another order of sums moves.
MARGIN = 2e-3
# How many ids a greedy text holds at least: one that only repeats itself says little.
DISTINCT = 5


def published(config, attention):
    """A configuration in the form that published MPT checkpoints have."""
    return {
        "architectures": ["MPTForCausalLM"],
        "model_type": "mpt",
        "expansion_ratio": 4,
        "emb_pdrop": 0,
        "resid_pdrop": 0,
        "learned_pos_emb": False,
        "logit_scale": None,
        "no_bias": True,
        "norm_type": "low_precision_layernorm",
        "use_cache": False,
        "tie_word_embeddings": True,
        "n_layers": 2,
        "vocab_size": VOCAB,
        "max_seq_len": CONTEXT,
        "attn_config": {
            "alibi": True,
            "alibi_bias_max": 8,
            "attn_impl": "torch",
            "attn_pdrop": 0,
            "attn_type": "multihead_attention",
            "attn_uses_sequence_id": False,
            "clip_qkv": None,
            "qk_ln": False,
            "softmax_scale": None,
        }
        | attention,
    } | config


def draw(model, seed, dtype=torch.float32):
    """Weights of which every one counts: matrices wide enough for scores far from even, norms away from 1, biases from 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            values = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                values *= 0.2
            elif parameter.dim() == 1:
                values = 1 + 0.2 * values
            else:
                values *= 1.2 / parameter.shape[1] ** 0.5
            parameter.copy_(values.to(dtype))


def draw_until_firm(model, dtype, logits_of):
    """Draws weights by one seed after the other until their greedy text is firm: the seed, prompt, text and least distance."""
    prompt = ids(1, 5, 4)
    for seed in count(SEED):
        draw(model, seed, dtype)
        with torch.no_grad():
            text, margin = greedy(logits_of, prompt, CONTEXT - prompt.shape[1])
        if margin > MARGIN and len(set(text[0].tolist())) >= DISTINCT:
            return {"seed": seed, "greedy_min_margin": round(margin, 5)}, {"greedy.input_ids": prompt, "greedy.new_tokens": text}


def ids(rows, seq, seed):
    return torch.randint(0, VOCAB, (rows, seq), generator=torch.Generator().manual_seed(seed))


def labels_of(rows):
    labels = rows.clone()
    labels[0, 2:4] = -100
    labels[-1, -1] = -100
    return labels


def loss_of(logits, labels):
    """Mean over position t against label t + 1, those of -100 left out."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))


def gradients_of(model):
    """Those of the first block have gone through all that is behind it."""
    kept = ["wte", "lm_head", "norm_f", "blocks.0.norm_1", "blocks.0.attn.Wqkv", "blocks.0.ffn.down_proj"]
    layer = lambda name: name.removeprefix("transformer.").rpartition(".")[0]
    return {f"main.grad.{name}": parameter.grad for name, parameter in model.named_parameters() if layer(name) in kept}


def greedy(logits_of, prompt, tokens):
    """The best id after all before, `tokens` times, and the least distance to the second best."""
    row, margin = prompt.clone(), float("inf")
    for _ in range(tokens):
        best = logits_of(row)[0, -1].topk(2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        row = torch.cat([row, best.indices[:1].reshape(1, 1)], dim=1)
    return row[:, prompt.shape[1] :], margin


def write(name, config, weights, expected, packages, note, **more):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file({key: x.contiguous() for key, x in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    save_file({key: x.detach().contiguous() for key, x in expected.items()}, folder / "expected.safetensors")
    write_case(folder, packages, note, **more)


def write_case(folder, packages, note, **more):
    made = {"note": note, "seed": SEED, "made_with": {name: version(name) for name in packages}} | more
    (folder / "case.json").write_text(json.dumps(made, indent=1) + "\n")
