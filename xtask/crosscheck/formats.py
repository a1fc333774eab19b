"""Compares what `mpt` reads and writes with transformers, peft, llama.cpp and the gguf package.

    python xtask/crosscheck/formats.py --mpt target/release/mpt

Needs: torch transformers peft gguf safetensors numpy, and llama-cpp-python for the part about llama.cpp (skipped, saying
so, where it is absent). Everything is made in a temporary folder from drawn weights. Exit code 1 when something differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

IDS = [[5, 17, 3, 250, 99, 7, 7, 301, 12, 44, 200, 6], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]

# What transformers' MPT honors; the rest it reads and ignores, so there is nothing to compare.
CASES = {
    "plain": {},
    "clip_qkv": {"attn_config": {"clip_qkv": 1.5}},
    "softmax_scale": {"attn_config": {"softmax_scale": 0.3}},
    "odd heads": {"n_heads": 6, "d_model": 48},
    "untied head": {"tie_word_embeddings": False},
    "norm_eps": {"norm_eps": 0.1},
}

# What llama.cpp's MPT honors beyond that. Not `qk_ln`: it reads the tensors, then fails an assertion of its own
# (a reshape of a view that is not contiguous) on any MPT file that has them.
LLAMA_CASES = CASES | {
    "alibi_bias_max": {"attn_config": {"alibi_bias_max": 16}},
    "biases": {"no_bias": False, "init_config": {"name": "default_"}},
    "ffn_hidden_size": {"expansion_ratio": 2},
}
LLAMA_CASES.pop("softmax_scale")

failures = []


def report(what, error, tolerance):
    ok = error <= tolerance
    print(f"{'ok  ' if ok else 'FAIL'} {what}: {error:.2e} (at most {tolerance:.0e})")
    if not ok:
        failures.append(what)


def relative(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


class Mpt:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder

    def run(self, *args):
        result = subprocess.run([self.binary, "--quiet", *map(str, args)], capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"mpt {' '.join(map(str, args))}: {result.stderr}")
        return result.stdout

    def model(self, name, config):
        base = {"model_type": "mpt", "d_model": 64, "n_heads": 4, "n_layers": 2, "vocab_size": 320, "max_seq_len": 64}
        path = self.folder / "config.json"
        path.write_text(json.dumps(base | config))
        out = self.folder / name.replace(" ", "-")
        self.run("init", out, "--config", path, "--seed", 3)
        return out

    def logits(self, model, *flags):
        ids, out = self.folder / "ids.json", self.folder / "out.safetensors"
        ids.write_text(json.dumps(IDS))
        self.run("score", "--model", model, "--ids-file", ids, "--out", out, *flags)
        return load_file(out)["logits"]


def check_transformers(mpt):
    from transformers import AutoModelForCausalLM

    for name, config in CASES.items():
        ours = mpt.model(f"hf {name}", config)
        for dtype in ["f32", "bf16"]:
            folder = ours if dtype == "f32" else mpt.folder / f"{ours.name}-{dtype}"
            if dtype != "f32":
                mpt.run("convert", ours, folder, "--to", "hf", "--dtype", dtype, "--max-shard-size", "100KB")
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
            with torch.no_grad():
                expected = model(torch.tensor(IDS)).logits.numpy()
            report(f"transformers loads ours, {name}, {dtype}", relative(mpt.logits(folder), expected), 1e-5)


def check_peft(mpt):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = mpt.model("peft base", {})
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    modules = ["Wqkv", "out_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=modules, task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    adapter = mpt.folder / "adapter"
    adapted.save_pretrained(adapter)
    adapted.eval()
    with torch.no_grad():
        expected = adapted(torch.tensor(IDS)).logits.numpy()
    report("we read a peft adapter", relative(mpt.logits(base, "--adapter", adapter), expected), 1e-5)
    merged = mpt.folder / "merged"
    mpt.run("merge", "--model", base, "--adapter", adapter, "--out", merged)
    report("our merge of a peft adapter", relative(mpt.logits(merged), expected), 1e-5)


def tokenizer(mpt):
    text = mpt.folder / "text.txt"
    text.write_text("the cat sat on the mat and the dog sat on the cat\n" * 20)
    path = mpt.folder / "tokenizer.json"
    if not path.exists():
        mpt.run("tokenizer", "train", text, "--vocab-size", 300, "--min-frequency", 1, "--out", path)
    return path


def check_llama_cpp(mpt):
    """llama.cpp has the tanh form of GELU and rounds activations in its kernels: the bound is that of the tanh form."""
    try:
        from llama_cpp import Llama
    except ImportError:
        print("skipped: llama-cpp-python is not installed")
        return
    for name, config in LLAMA_CASES.items():
        ours = mpt.model(f"llama {name}", config)
        (ours / "tokenizer.json").write_bytes(tokenizer(mpt).read_bytes())
        for dtype in ["f32", "f16"]:
            path = mpt.folder / f"{ours.name}-{dtype}.gguf"
            mpt.run("convert", ours, path, "--to", "gguf", "--dtype", dtype)
            llama = Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=2)
            llama.eval(IDS[0])
            found = np.array(llama.scores[: len(IDS[0])])
            report(f"llama.cpp loads ours, {name}, {dtype}", relative(found, mpt.logits(path)[0]), 5e-3)
    text = "the cat sat on  the dog, 12 times"
    ids = json.loads(mpt.run("tokenizer", "encode", "--tokenizer", tokenizer(mpt), text))["ids"]
    same = llama.tokenize(text.encode(), add_bos=False, special=True) == ids
    report("llama.cpp tokenizes as ours", 0.0 if same else 1.0, 0.0)


def check_gguf(mpt):
    """A file written by the gguf package, plain and quantized, against the numbers the package reads from it."""
    import gguf
    from gguf.quants import dequantize, quantize

    names = {"wte": "token_embd", "norm_f": "output_norm", "norm_1": "attn_norm", "norm_2": "ffn_norm"}
    names |= {"attn.Wqkv": "attn_qkv", "attn.out_proj": "attn_output", "ffn.up_proj": "ffn_up", "ffn.down_proj": "ffn_down"}
    d = 256
    ours = mpt.model("gguf base", {"d_model": d, "n_heads": 4})
    tensors = load_file(ours / "model.safetensors")
    kinds = gguf.GGMLQuantizationType
    rng = np.random.default_rng(0)
    for kind in [kinds.F32, kinds.F16, kinds.BF16, kinds.Q8_0, kinds.Q4_0, kinds.Q4_K, kinds.Q5_K, kinds.Q6_K]:
        path = mpt.folder / f"{kind.name}.gguf"
        writer = gguf.GGUFWriter(path, "mpt")
        writer.add_context_length(64)
        writer.add_embedding_length(d)
        writer.add_block_count(2)
        writer.add_feed_forward_length(4 * d)
        writer.add_head_count(4)
        writer.add_layer_norm_eps(1e-5)
        writer.add_max_alibi_bias(8.0)
        expected = {}
        for name, values in tensors.items():
            layer = name.removeprefix("transformer.").removesuffix(".weight")
            if layer.startswith("blocks."):
                _, block, layer = layer.split(".", 2)
                gguf_name = f"blk.{block}.{names[layer]}.weight"
            else:
                gguf_name = f"{names[layer]}.weight"
            if values.ndim == 1 or kind == kinds.F32:
                writer.add_tensor(gguf_name, values)
                expected[name] = values
                continue
            data = random_blocks(rng, kind, values) if kind.name.endswith("_K") else quantize(values, kind)
            writer.add_tensor(gguf_name, data, raw_dtype=kind)
            expected[name] = dequantize(data, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        out = mpt.folder / f"from-{kind.name}"
        mpt.run("convert", path, out, "--to", "hf", "--dtype", "f32")
        found = load_file(out / "model.safetensors")
        worst = max(float(np.abs(found[name] - expected[name]).max()) for name in tensors)
        report(f"we read the gguf package's {kind.name}", worst, 0.0)


def random_blocks(rng, kind, values):
    """The package does not write k-quants: random blocks with small scales are as good to read."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = values.shape[0]
    data = rng.integers(0, 256, (rows, values.shape[1] // block, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(0.001).tobytes(), dtype=np.uint8)
    for at in [208] if kind.name == "Q6_K" else [0, 2]:
        data[:, :, at : at + 2] = scale
    return data.reshape(rows, -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mpt", required=True, help="the binary")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mpt = Mpt(args.mpt, Path(folder))
        for check in [check_transformers, check_peft, check_gguf, check_llama_cpp]:
            check(mpt)
    print(f"{len(failures)} differences")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
