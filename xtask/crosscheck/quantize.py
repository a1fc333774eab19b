"""Compares what `mpt quantize` writes with ggml, llama.cpp, bitsandbytes and transformers.

    python xtask/crosscheck/quantize.py --mpt target/release/mpt

Needs: torch transformers gguf safetensors numpy and llama-cpp-python, and bitsandbytes with accelerate for the part about
NF4 (skipped, saying so, where it is absent). Everything is made in a temporary folder from drawn weights, some of them
replaced by zeros, constants, outliers, large and subnormal numbers. Exit code 1 when something differs.
"""

import argparse
import ctypes
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from formats import IDS, Mpt, failures, relative, report, tokenizer
from safetensors.numpy import load_file, save_file

# Name on the command line, ggml's number of the type and of the file type, and values and bytes of a block.
TYPES = {"q8_0": (8, 7, 32, 34), "q4_0": (2, 2, 32, 18), "q4_k": (12, 15, 256, 144), "q5_k": (13, 17, 256, 176), "q6_k": (14, 18, 256, 210)}

MODEL = {"d_model": 256, "n_heads": 4, "tie_word_embeddings": False}

LINEARS = ["attn.Wqkv", "attn.out_proj", "ffn.up_proj", "ffn.down_proj"]


def ggml():
    """`ggml_quantize_chunk` of the library that llama-cpp-python brings."""
    import llama_cpp

    libraries = sorted((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.*"))
    quantize = ctypes.CDLL(str(libraries[0])).ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]

    def run(name, values):
        number, _, length, size = TYPES[name]
        values = np.ascontiguousarray(values, dtype=np.float32)
        out = np.zeros(values.size // length * size, dtype=np.uint8)
        quantize(number, values.ctypes.data, out.ctypes.data, 0, values.shape[0], values.shape[1], None)
        return out

    return run


def strange(values, rng):
    """Values of all kinds a form must hold: a kind to a row, several times over."""
    values = values.copy()
    for row in range(0, len(values) - 12, 24):
        values[row] = 0.0
        values[row + 1] = 0.25
        values[row + 2] = -0.25
        values[row + 3] = rng.uniform(1.0, 2.0, values.shape[1])
        values[row + 4] = rng.normal(0, 1e-7, values.shape[1])
        values[row + 5] = rng.normal(0, 1e-39, values.shape[1])
        values[row + 6] = rng.normal(0, 3e3, values.shape[1])
        values[row + 7, ::7] *= 50.0
        values[row + 8] = np.abs(values[row + 8])
        values[row + 9] = -np.abs(values[row + 9])
        values[row + 10] = rng.standard_t(1.5, values.shape[1]).clip(-1e3, 1e3)
        values[row + 11] = np.where(rng.random(values.shape[1]) < 0.9, 0.0, values[row + 11])
    return values


def model(mpt, name, config, odd=False):
    folder = mpt.model(name, MODEL | config)
    if odd:
        rng = np.random.default_rng(1)
        path = folder / "model.safetensors"
        tensors = {name: strange(x, rng) if x.ndim == 2 else x for name, x in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    return folder


def from_gguf(name):
    layers = {"attn_qkv": "attn.Wqkv", "attn_output": "attn.out_proj", "ffn_up": "ffn.up_proj", "ffn_down": "ffn.down_proj"}
    layers |= {"attn_norm": "norm_1", "ffn_norm": "norm_2"}
    whole = {"token_embd": "transformer.wte", "output_norm": "transformer.norm_f", "output": "lm_head"}
    layer = name.removesuffix(".weight")
    if layer.startswith("blk."):
        _, block, layer = layer.split(".")
        return f"transformer.blocks.{block}.{layers[layer]}.weight"
    return f"{whole[layer]}.weight"


def check_ggml(mpt):
    import gguf

    quantize = ggml()
    for kind, odd, config in [("drawn", False, {}), ("strange", True, {}), ("rows of 96", False, {"d_model": 96})]:
        ours = model(mpt, f"ggml {kind}", config, odd)
        expected = load_file(ours / "model.safetensors")
        for name, (number, file_type, length, _) in TYPES.items():
            path = mpt.folder / f"{ours.name}.{name}.gguf"
            said = json.loads(mpt.run("quantize", ours, path, "--type", name, "--json"))
            reader = gguf.GGUFReader(path)
            field = lambda key: int(reader.fields[key].parts[-1][0])
            right = field("general.file_type") == file_type and field("general.quantization_version") == 2
            wrong, squares, errors = 0, 0.0, 0.0
            for tensor in reader.tensors:
                values = expected[from_gguf(tensor.name)]
                if values.ndim == 1:
                    right &= tensor.tensor_type == 0 and bool((tensor.data == values).all())
                    continue
                fits = values.shape[1] % length == 0
                right &= int(tensor.tensor_type) == (number if fits else 8)
                found = np.frombuffer(tensor.data.tobytes(), dtype=np.uint8)
                wrong += int((found != quantize(name if fits else "q8_0", values)).sum())
                wide = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
                squares, errors = squares + (values.astype(np.float64) ** 2).sum(), errors + ((wide - values) ** 2).sum()
            report(f"bytes of ggml's {name}, {kind}", float(wrong), 0.0)
            report(f"types and keys of {name}, {kind}", 0.0 if right else 1.0, 0.0)
            report(f"error that is said, {name}, {kind}", abs(said["error"]["relative_rms"] / np.sqrt(errors / squares) - 1), 1e-4)


def check_llama_cpp(mpt):
    """llama.cpp rounds activations to 8 bits in products with these types. It gets one token at a time: with several, some
    of its releases crash on processors with AMX, on its own quantized files as well."""
    from llama_cpp import Llama

    ours = mpt.model("llama", {"d_model": 256, "n_heads": 4})
    (ours / "tokenizer.json").write_bytes(tokenizer(mpt).read_bytes())
    for name in TYPES:
        path = mpt.folder / f"llama.{name}.gguf"
        mpt.run("quantize", ours, path, "--type", name)
        llama = Llama(str(path), n_ctx=64, logits_all=True, verbose=False, n_threads=2)
        for token in IDS[0]:
            llama.eval([token])
        found = np.array(llama.scores[: len(IDS[0])])
        report(f"llama.cpp computes with our {name}", relative(found, mpt.logits(path)[0]), 5e-2)
        report(f"quantized at load, {name}", relative(mpt.logits(ours, "--dtype", name), mpt.logits(path)), 1e-5)


def check_bitsandbytes(mpt):
    try:
        import bitsandbytes
        from bitsandbytes import functional
    except ImportError:
        print("skipped: bitsandbytes is not installed")
        return
    print(f"bitsandbytes {bitsandbytes.__version__}")
    for kind, odd in [("drawn", False), ("strange", True)]:
        ours = model(mpt, f"nf4 {kind}", {}, odd)
        folder = mpt.folder / f"{ours.name}-out"
        said = json.loads(mpt.run("quantize", ours, folder, "--type", "nf4", "--json"))
        expected, found = load_file(ours / "model.safetensors"), load_file(folder / "model.safetensors")
        codes = indices = states = kept = total = 0
        squares = errors = offset = worst = 0.0
        for name, values in expected.items():
            if not any(name.endswith(f"{layer}.weight") for layer in LINEARS):
                kept += int((found[name] != values).sum())
                continue
            packed, state = functional.quantize_4bit(torch.from_numpy(values), quant_type="nf4", compress_statistics=True)
            parts = {key.removeprefix(f"{name}."): x for key, x in found.items() if key.startswith(f"{name}.")}
            codes += int((found[name] != packed.numpy()).sum())
            indices += int((parts["absmax"] != state.absmax.numpy()).sum())
            total += state.absmax.numel()
            offset = max(offset, abs(json.loads(bytes(parts["quant_state.bitsandbytes__nf4"]))["nested_offset"] / float(state.offset) - 1))
            tensors = {key: torch.from_numpy(x.copy()) for key, x in parts.items()}
            theirs = functional.QuantState.from_dict(tensors, torch.device("cpu"))
            states += theirs.shape != state.shape or theirs.blocksize != 64 or theirs.dtype != torch.float32
            wide = functional.dequantize_4bit(torch.from_numpy(found[name]), theirs).numpy().astype(np.float64)
            squares, errors = squares + (values.astype(np.float64) ** 2).sum(), errors + ((wide - values) ** 2).sum()
            back = mpt.folder / "back"
            if not back.exists():
                mpt.run("convert", folder, back, "--to", "hf", "--dtype", "f32")
                wider = load_file(back / "model.safetensors")
            worst = max(worst, float(np.abs(wider[name] - wide).max()))
        for file in back.iterdir():
            file.unlink()
        back.rmdir()
        report(f"codes of bitsandbytes, {kind}", float(codes), 0.0)
        # its search on a CPU is not exact: near the middle of two levels it may take the farther one
        report(f"8-bit scales of bitsandbytes that differ, {kind}", indices / total, 5e-3)
        report(f"offset of bitsandbytes, {kind}", offset, 1e-5)
        report(f"shapes, blocks and dtypes, {kind}", float(states), 0.0)
        report(f"tensors that are not quantized, {kind}", float(kept), 0.0)
        report(f"values as bitsandbytes reads them, {kind}", worst, 0.0)
        report(f"error that is said, nf4, {kind}", abs(said["error"]["relative_rms"] / np.sqrt(errors / squares) - 1), 1e-4)


def check_transformers(mpt):
    """On a CPU bitsandbytes computes in bf16, whatever it is asked for: the bound is that of bf16."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        return
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    ours = mpt.model("nf4 tied", {"d_model": 256, "n_heads": 4})
    folder = mpt.folder / "nf4-tied-out"
    mpt.run("quantize", ours, folder, "--type", "nf4")
    report("quantized at load, nf4", relative(mpt.logits(ours, "--dtype", "nf4"), mpt.logits(folder)), 1e-5)
    load = lambda path, **more: AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", device_map="cpu", **more
    ).eval()
    theirs = load(folder)
    with torch.no_grad():
        expected = theirs(torch.tensor(IDS)).logits.numpy()
    report("transformers loads ours", relative(mpt.logits(folder), expected), 3e-2)
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
    )
    for nested in [True, False]:
        config.bnb_4bit_use_double_quant = nested
        theirs, saved = load(ours, quantization_config=config), mpt.folder / f"saved-{nested}"
        theirs.save_pretrained(saved)
        with torch.no_grad():
            expected = theirs(torch.tensor(IDS)).logits.numpy()
        report(f"we load theirs, double quantization {nested}", relative(mpt.logits(saved), expected), 3e-2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mpt", required=True, help="the binary")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mpt = Mpt(args.mpt, Path(folder))
        for check in [check_ggml, check_llama_cpp, check_bitsandbytes, check_transformers]:
            check(mpt)
    print(f"{len(failures)} differences")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
