"""Reading a prompt and greedy generation of a GGUF file under llama.cpp, through the C functions that llama-cpp-python binds.

    python llamacpp.py --model mpt-125m-q8_0.gguf --prompt 512 --gen 64

The library copies quantized weights into an order of its own where the processor has instructions for it. Some builds crash
then on some machines; a trial in a process of its own finds out, and the weights stay as they are in the file where it does.
"""

import argparse
import ctypes
import os
import statistics

import llama_cpp
import numpy as np
from measure import report, seconds


def silence():
    """Drops the library's messages; the callback must outlive it."""
    silence.callback = llama_cpp.llama_log_callback(lambda level, text, user: None)
    llama_cpp.llama_log_set(silence.callback, ctypes.c_void_p(0))


def open_model(path, repacked):
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = repacked
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


class Session:
    """A model with room for a prompt and what follows it."""

    def __init__(self, args, repacked):
        self.args = args
        self.load_seconds, self.model = seconds(lambda: open_model(args.model, repacked))
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.context = open_context(self.model, args.prompt + args.gen, args.threads)

    def forward(self, ids):
        """Runs new tokens and gives the likeliest next one."""
        ids = (llama_cpp.llama_token * len(ids))(*ids)
        status = llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(ids, len(ids)))
        if status != 0:
            raise SystemExit(f"llama_decode returns {status}")
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self.vocab,)).argmax())

    def read(self):
        for at in range(0, self.args.prompt, 512):
            last = self.forward([i * 7919 % self.vocab for i in range(at, min(at + 512, self.args.prompt))])
        return last

    def generate(self, last):
        for _ in range(self.args.gen):
            last = self.forward([last])

    def repetition(self):
        """Seconds of the prompt, and of what follows it."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        prefill, last = seconds(self.read)
        return prefill, seconds(lambda: self.generate(last))[0]


def survives(args):
    """Whether a prompt is read with weights in the library's own order."""
    child = os.fork()
    if child == 0:
        Session(args, repacked=True).read()
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--gen", type=int, default=64)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    silence()
    repacked = survives(args)
    llama_cpp.llama_backend_init()
    session = Session(args, repacked)
    session.repetition()
    prefill, decode = zip(*(session.repetition() for _ in range(args.reps)))
    report(
        prefill_tokens_per_s=args.prompt / statistics.median(prefill),
        decode_tokens_per_s=args.gen / statistics.median(decode),
        load_seconds=session.load_seconds,
        llama_cpp_python=llama_cpp.__version__,
        **({} if repacked else {"note": "llama.cpp crashes here with weights in its own order; measured without"}),
    )


if __name__ == "__main__":
    main()
