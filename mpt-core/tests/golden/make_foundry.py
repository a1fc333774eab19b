"""Makes the golden cases of this folder that come from llm-foundry: what transformers reads and then ignores.

    pip install llm-foundry
    python mpt-core/tests/golden/make_foundry.py

The versions that made a case stand in its case.json. Everything is computed in f32 on one thread, with `attn_impl: torch`.
"""

import torch
from llmfoundry.models.mpt import MPTConfig, MPTForCausalLM
from writing import SEED, draw, draw_until_firm, gradients_of, ids, labels_of, loss_of, published, write

PACKAGES = ["torch", "llm-foundry"]

# Name, what it is about, configuration, keys of `attn_config`.
CASES = [
    (
        "f-qk-ln",
        "clipped projections, then a norm over all of q and one over all of k",
        {"d_model": 8, "n_heads": 2},
        {"clip_qkv": 0.8, "qk_ln": True},
    ),
    (
        "f-gqa",
        "four heads over two of keys and values, biases everywhere, alibi_bias_max and logit_scale",
        {"d_model": 8, "n_heads": 4, "no_bias": False, "logit_scale": 0.7},
        {"attn_type": "grouped_query_attention", "kv_n_heads": 2, "alibi_bias_max": 16},
    ),
    (
        "f-rmsnorm-glu",
        "rmsnorm, a gated feed-forward, learned positions",
        {"d_model": 12, "n_heads": 2, "norm_type": "rmsnorm", "ffn_config": {"ffn_type": "mptglu"}, "learned_pos_emb": True},
        {"alibi": False},
    ),
]


def make(name, note, config, attention):
    config = published(config, attention)
    model = MPTForCausalLM(MPTConfig(**config)).eval()
    drawn, text = draw_until_firm(model, torch.bfloat16, lambda row: model(input_ids=row).logits)
    main, pad = ids(2, 9, 1), ids(3, 7, 3)
    labels = labels_of(main)
    logits = model(input_ids=main).logits
    loss = loss_of(logits, labels)
    loss.backward()
    mask = torch.tensor([[1] * 7, [0] * 3 + [1] * 4, [0] * 6 + [1]])
    with torch.no_grad():
        padded = model(input_ids=pad, attention_mask=mask.bool()).logits * mask[:, :, None]
    expected = {"main.input_ids": main, "main.labels": labels, "main.logits": logits, "main.loss": loss.reshape(1)}
    expected |= {"pad.input_ids": pad, "pad.attention_mask": mask, "pad.logits": padded}
    weights = {key: parameter.detach().to(torch.bfloat16) for key, parameter in model.named_parameters()}
    config["torch_dtype"] = "bfloat16"
    write(name, config, weights, expected | gradients_of(model) | text, PACKAGES, note, **drawn)


def make_packed():
    """Tokens that attend to earlier ones of their own document alone."""
    config = published({"d_model": 12, "n_heads": 3, "n_layers": 1}, {"attn_uses_sequence_id": True})
    model = MPTForCausalLM(MPTConfig(**config)).eval()
    draw(model, SEED)
    weights = {key: x.detach() for key, x in model.named_parameters()}
    main = ids(2, 9, 1)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 2, 2, 2]])
    with torch.no_grad():
        logits = model(input_ids=main, sequence_id=documents, attention_mask=torch.ones_like(main).bool()).logits
    expected = {"main.input_ids": main, "main.sequence_id": documents, "main.logits": logits}
    config["torch_dtype"] = "float32"
    write("f-sequence-id", config, weights, expected, PACKAGES, "packed documents do not see each other")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        make(*case)
    make_packed()
