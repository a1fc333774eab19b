"""Reading a prompt and greedy generation of a GGUF file under llama.cpp, through the C functions that llama-cpp-python binds.

    python llamacpp.py --model mpt-125m-q8_0.gguf --prompt 512 --gen 64
"""

import argparse
import ctypes
import statistics

import llama_cpp
import numpy as np
from measure import report, seconds


def silence():
    """Drops the library's messages; the callback must outlive it."""
    silence.callback = llama_cpp.llama_log_callback(lambda level, text, user: None)
    llama_cpp.llama_log_set(silence.callback, ctypes.c_void_p(0))


def open_model(path):
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp does not load {path}")
    return model


def open_context(model, tokens, threads):
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = tokens, 512, 512
    params.n_threads = params.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise SystemExit("llama.cpp makes no context")
    return context


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--gen", type=int, default=64)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    silence()
    llama_cpp.llama_backend_init()
    load_seconds, model = seconds(lambda: open_model(args.model))
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    context = open_context(model, args.prompt + args.gen, args.threads)

    def forward(ids):
        """Runs new tokens and gives the likeliest next one."""
        ids = (llama_cpp.llama_token * len(ids))(*ids)
        status = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(ids)))
        if status != 0:
            raise SystemExit(f"llama_decode returns {status}")
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(vocab,)).argmax())

    def read():
        for at in range(0, args.prompt, 512):
            last = forward([i * 7919 % vocab for i in range(at, min(at + 512, args.prompt))])
        return last

    def generate(last):
        for _ in range(args.gen):
            last = forward([last])

    def repetition():
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        prefill, last = seconds(read)
        return prefill, seconds(lambda: generate(last))[0]

    repetition()
    prefill, decode = zip(*(repetition() for _ in range(args.reps)))
    report(
        prefill_tokens_per_s=args.prompt / statistics.median(prefill),
        decode_tokens_per_s=args.gen / statistics.median(decode),
        load_seconds=load_seconds,
        llama_cpp_python=llama_cpp.__version__,
    )


if __name__ == "__main__":
    main()
