"""Training steps of a model with random weights under transformers and torch: forward, backward, clip, AdamW.

    python train.py --config mpt-125m/config.json --seq-len 512 --batch 4 --precision bf16

With `--precision bf16` products run in bf16 by autocast and the weights stay f32.
"""

import argparse
import statistics

from measure import report, seconds, torch_with


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch = torch_with(args.threads)
    from transformers import MptConfig, MptForCausalLM

    torch.manual_seed(17)
    config = MptConfig.from_json_file(args.config)
    model = MptForCausalLM(config).float().train()
    decays = dict(lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    optimizer = torch.optim.AdamW(model.parameters(), **decays)

    def step():
        ids = torch.randint(0, config.vocab_size, (args.batch, args.seq_len))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()  # makes the optimizer's state
    middle = statistics.median(seconds(step)[0] for _ in range(args.steps))
    report(tokens_per_s=args.batch * args.seq_len / middle, step_seconds=middle, torch=torch.__version__)


if __name__ == "__main__":
    main()
