"""Reading a prompt and greedy generation of a model folder under transformers, in bf16.

    python infer.py --model mpt-125m --prompt 512 --gen 64
"""

import argparse
import statistics

from measure import report, seconds, torch_with


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--gen", type=int, default=64)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch = torch_with(args.threads)
    from transformers import DynamicCache, MptForCausalLM

    load = lambda: MptForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()  # noqa: E731
    load_seconds, model = seconds(load)
    vocab = model.config.vocab_size
    prompt = torch.tensor([[i * 7919 % vocab for i in range(args.prompt)]])

    def repetition():
        cache = DynamicCache()

        def forward(ids):
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            return logits[:, -1].argmax(-1, keepdim=True)

        def generate(ids):
            for _ in range(args.gen):
                ids = forward(ids)

        prefill, ids = seconds(lambda: forward(prompt))
        return prefill, seconds(lambda: generate(ids))[0]

    with torch.inference_mode():
        repetition()
        prefill, decode = zip(*(repetition() for _ in range(args.reps)))
    report(
        prefill_tokens_per_s=args.prompt / statistics.median(prefill),
        decode_tokens_per_s=args.gen / statistics.median(decode),
        load_seconds=load_seconds,
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
