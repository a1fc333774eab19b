"""Makes the golden optimizer steps of this folder: AdamW of torch, and Lion as its paper states it.

    pip install torch transformers safetensors
    python mpt-train/tests/golden/make.py

Each file starts from the golden model `alibi` of mpt-core and takes six steps in f32 on one thread. Its JSON beside it has
the settings and versions. Lion (Chen et al. 2023, Algorithm 2, with the rate that decay is multiplied by left out, as in
llm-foundry's DecoupledLionW at a constant rate):

    c = beta1 m + (1 - beta1) g;  w = (1 - decay) w - lr sign(c);  m = beta2 m + (1 - beta2) g
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import MptForCausalLM

HERE = Path(__file__).parent
START = HERE.parents[2] / "mpt-core" / "tests" / "golden" / "alibi"
SEED, STEPS, CLIP = 1, 6, 1.0
SETTINGS = {
    "adamw": {"lr": 2e-3, "weight_decay": 0.1, "betas": [0.9, 0.95], "eps": 1e-8},
    "lion": {"lr": 3e-4, "weight_decay": 0.01, "betas": [0.9, 0.99], "eps": None},
}
RULES = {
    "adamw": "weight *= 1 - lr*weight_decay before the step",
    "lion": "weight *= 1 - weight_decay before the step (constant rate)",
}


class Lion:
    def __init__(self, parameters, lr, weight_decay, betas, eps):
        self.parameters = [(parameter, torch.zeros_like(parameter)) for parameter in parameters]
        self.lr, self.decay, self.betas = lr, weight_decay, betas

    def step(self):
        with torch.no_grad():
            for parameter, momentum in self.parameters:
                sign = (self.betas[0] * momentum + (1 - self.betas[0]) * parameter.grad).sign()
                parameter.mul_(1 - self.decay).sub_(self.lr * sign)
                momentum.mul_(self.betas[1]).add_((1 - self.betas[1]) * parameter.grad)


def make(name):
    settings = SETTINGS[name]
    model = MptForCausalLM.from_pretrained(START, dtype=torch.float32, attn_implementation="eager").train()
    optimizer = torch.optim.AdamW(model.parameters(), **settings) if name == "adamw" else Lion(model.parameters(), **settings)
    batches = torch.randint(0, model.config.vocab_size, (STEPS, 2, 14), generator=torch.Generator().manual_seed(SEED))
    losses, norms = [], []
    for batch in batches:
        model.zero_grad()
        logits = model(batch).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1))
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).detach())
        losses.append(loss.detach())
        optimizer.step()
    out = {"batches": batches, "losses": torch.stack(losses), "grad_norms": torch.stack(norms)}
    with torch.no_grad():
        out["final.logits"] = model(batches[0]).logits.contiguous()
    for parameter in ["transformer.blocks.0.attn.Wqkv.weight", "transformer.wte.weight"]:
        out[f"final.{parameter}"] = dict(model.named_parameters())[parameter].detach().contiguous()
    save_file(out, HERE / f"{name}.safetensors")
    made = {"start": "alibi", "optimizer": name} | settings | {"clip_grad_norm": CLIP, "steps": STEPS, "decay_rule": RULES[name]}
    made |= {"seed": SEED, "made_with": {package: version(package) for package in ["torch", "transformers"]}}
    (HERE / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in SETTINGS:
        make(name)
