"""Makes the golden cases of this folder that come from transformers, peft, the gguf package and bitsandbytes.

    pip install torch transformers peft safetensors gguf bitsandbytes accelerate numpy
    python mpt-core/tests/golden/make.py

The versions that made a case stand in its case.json. Everything is computed in f32 on one thread.
"""

import json
import shutil
import tempfile

import gguf
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig, MptConfig, MptForCausalLM
from writing import CONTEXT, HERE, SEED, VOCAB, draw, draw_until_firm, gradients_of, ids, labels_of, loss_of, published, write, write_case

PACKAGES = ["torch", "transformers"]


def build(config):
    return MptForCausalLM._from_config(MptConfig(**config), attn_implementation="eager").eval()


def hidden_states(model, row):
    """What blocks and their parts give for one row."""
    found, hooks = {}, []

    def keep(name):
        def hook(_module, _inputs, output):
            found[f"main.{name}"] = (output[0] if isinstance(output, tuple) else output).detach()

        return hook

    body = model.transformer
    parts = [("embed", body.wte), ("norm_f", body.norm_f)]
    for index, block in enumerate(body.blocks):
        parts += [(f"block{index}.norm_1", block.norm_1), (f"block{index}.attn", block.attn), (f"block{index}.out", block)]
    hooks = [module.register_forward_hook(keep(name)) for name, module in parts]
    with torch.no_grad():
        model(row)
    for hook in hooks:
        hook.remove()
    return found


def expected_of(model):
    """Logits of a batch, of one token, of a row beyond the context and of padded rows; the loss and its gradients."""
    main, one, pad = ids(2, 9, 1), ids(1, 1, 2), ids(3, 7, 3)
    labels = labels_of(main)
    logits = model(main).logits
    loss = loss_of(logits, labels)
    loss.backward()
    expected = {"main.input_ids": main, "main.labels": labels, "main.logits": logits, "main.loss": loss.reshape(1)}
    expected |= gradients_of(model)
    expected |= hidden_states(model, main[:1])
    mask = torch.tensor([[1] * 7, [0] * 3 + [1] * 4, [0] * 6 + [1]])
    with torch.no_grad():
        expected |= {"one.input_ids": one, "one.logits": model(one).logits}
        padded = model(pad, attention_mask=mask).logits * mask[:, :, None]
        expected |= {"pad.input_ids": pad, "pad.attention_mask": mask, "pad.logits": padded}
    return expected


def longer(config, weights):
    """The last logits of a row beyond the context, as ALiBi allows; computed by the same model of a longer context."""
    model, row = build(config | {"max_seq_len": 3 * CONTEXT, "torch_dtype": "float32"}), ids(1, 2 * CONTEXT + 3, 5)
    model.load_state_dict({name: x.float() for name, x in weights.items()}, strict=False)
    with torch.no_grad():
        return {"long.input_ids": row, "long.logits_last8": model(row).logits[:, -8:]}


# Name, what it is about, configuration, keys of `attn_config`, form of the weights.
CASES = [
    ("alibi", "four heads, a power of two", {"d_model": 12, "n_heads": 4}, {}, torch.float32),
    (
        "three-heads",
        "ALiBi's slopes of a number of heads that is no power of two; an output projection of its own; another softmax_scale",
        {"d_model": 12, "n_heads": 3, "tie_word_embeddings": False},
        {"softmax_scale": 0.3},
        torch.bfloat16,
    ),
    ("clip", "about half of the projections are clipped", {"d_model": 12, "n_heads": 2}, {"clip_qkv": 0.8}, torch.bfloat16),
]


def make_cases():
    for name, note, config, attention, dtype in CASES:
        config = published(config, attention)
        model = build(config)
        drawn, text = draw_until_firm(model, dtype, lambda row: model(row, use_cache=False).logits)
        weights = {key: parameter.detach().to(dtype) for key, parameter in model.named_parameters()}
        config["torch_dtype"] = str(dtype).removeprefix("torch.")
        expected = expected_of(model) | longer(config, weights) | text
        write(name, config, weights, expected, PACKAGES, note, **drawn)


def make_lora():
    """A peft adapter on the model of `clip`: its logits, its gradients, and those of the model it is folded into."""
    folder = HERE / "lora"
    shutil.rmtree(folder, ignore_errors=True)
    model = MptForCausalLM.from_pretrained(HERE / "clip", dtype=torch.float32, attn_implementation="eager")
    modules = ["Wqkv", "out_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=6, target_modules=modules, task_type="CAUSAL_LM")).eval()
    draw_adapter(adapted)
    main = ids(2, 9, 1)
    labels = labels_of(main)
    logits = adapted(main).logits
    loss = loss_of(logits, labels)
    loss.backward()
    expected = {"main.input_ids": main, "main.labels": labels, "main.logits": logits, "main.loss": loss.reshape(1)}
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            expected[f"main.grad.{name.replace('.default', '')}"] = parameter.grad
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    adapter = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": "clip", "target_modules": modules}
    (folder / "adapter_config.json").write_text(json.dumps(adapter, indent=1, sort_keys=True) + "\n")
    with torch.no_grad():
        merged = adapted.merge_and_unload()
        expected["merged.logits"] = merged(main).logits
    name = "transformer.blocks.1.ffn.down_proj.weight"
    expected[f"merged.weight.{name}"] = dict(merged.named_parameters())[name]
    save_file({key: x.detach().contiguous() for key, x in expected.items()}, folder / "expected.safetensors")
    write_case(folder, PACKAGES + ["peft"], "an adapter of rank 2 on every linear of `clip`")


def draw_adapter(adapted):
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for _, parameter in sorted(adapted.named_parameters()):
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


# Rows of a quantized tensor whose values are kept: they are alike.
KEPT = 2


def make_gguf():
    """A file with a form for every kind of block, and what the package says its first rows hold."""
    folder = HERE / "gguf"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(SEED)
    d_model, hidden = 32, 256
    writer = gguf.GGUFWriter(folder / "model.gguf", "mpt")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(d_model)
    writer.add_block_count(2)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-5)
    writer.add_max_alibi_bias(8.0)
    expected = {}

    def add(name, shape, kind):
        data = blocks(rng, shape, kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
        values = gguf.quants.dequantize(data, kind)
        expected[checkpoint_name(name)] = torch.from_numpy(values[:KEPT].copy())

    kinds = gguf.GGMLQuantizationType
    add("token_embd", (VOCAB, d_model), kinds.F16)
    for block, kind in enumerate([kinds.Q4_K, kinds.Q6_K]):
        for norm in ["attn_norm", "ffn_norm"]:
            add(f"blk.{block}.{norm}", (d_model,), kinds.F32)
        add(f"blk.{block}.attn_qkv", (3 * d_model, d_model), kinds.Q8_0)
        add(f"blk.{block}.attn_output", (d_model, d_model), [kinds.Q4_0, kinds.BF16][block])
        add(f"blk.{block}.ffn_up", (hidden, d_model), kinds.Q4_0)
        add(f"blk.{block}.ffn_down", (d_model, hidden), kind)
    add("output_norm", (d_model,), kinds.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, folder / "expected.safetensors")
    write_case(folder, ["gguf", "numpy"], "values of the first rows as the package reads them; Q4_K and Q6_K blocks are drawn bytes")


def checkpoint_name(name):
    """What a tensor of a GGUF file is called in a checkpoint."""
    names = {"token_embd": "wte", "output_norm": "norm_f", "attn_norm": "norm_1", "ffn_norm": "norm_2"}
    names |= {"attn_qkv": "attn.Wqkv", "attn_output": "attn.out_proj", "ffn_up": "ffn.up_proj", "ffn_down": "ffn.down_proj"}
    block, _, layer = name.rpartition(".")
    return f"transformer.{block.replace('blk', 'blocks')}{'.' if block else ''}{names[layer]}.weight"


def blocks(rng, shape, kind):
    """The package writes the plain forms; K-blocks, which it only reads, are drawn bytes with scales of usual size."""
    kinds = gguf.GGMLQuantizationType
    values = rng.normal(0, 0.05, shape).astype(np.float32)
    if kind not in [kinds.Q4_K, kinds.Q6_K]:
        return gguf.quants.quantize(values, kind)
    length, size = gguf.GGML_QUANT_SIZES[kind]
    drawn = rng.integers(0, 256, (shape[0], shape[1] // length * size), dtype=np.uint8)
    scales = [0, 2] if kind == kinds.Q4_K else [size - 2]
    for row in drawn.reshape(-1, size):
        for at in scales:
            row[at : at + 2] = np.frombuffer(np.float16(rng.uniform(-0.01, 0.01)).tobytes(), dtype=np.uint8)
    return drawn


def make_nf4():
    """The linears of a block in NF4 with nested scales, as transformers saves them, and what bitsandbytes reads."""
    from bitsandbytes import functional

    folder = HERE / "nf4"
    shutil.rmtree(folder, ignore_errors=True)
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )
    plain = build(published({"d_model": 64, "n_heads": 2, "n_layers": 1}, {}))
    draw(plain, SEED)
    with tempfile.TemporaryDirectory() as unquantized:
        plain.save_pretrained(unquantized)
        model = MptForCausalLM.from_pretrained(
            unquantized, dtype=torch.float32, attn_implementation="eager", device_map="cpu", quantization_config=config
        )
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    expected = {}
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            expected[name] = functional.dequantize_4bit(parameter.data, state).detach()[:KEPT].clone()
    assert len(expected) == 4, sorted(expected)
    save_file(expected, folder / "expected.safetensors")
    write_case(folder, PACKAGES + ["bitsandbytes"], "blocks of 64 with scales in 8 bits; values of the first rows as bitsandbytes reads them")


if __name__ == "__main__":
    torch.set_num_threads(1)
    make_cases()
    make_lora()
    make_gguf()
    make_nf4()
