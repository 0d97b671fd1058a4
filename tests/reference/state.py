"""Everything about a model that a computation could leave changed."""

from __future__ import annotations

import torch

HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)  # fmt: skip


def snapshot(model):
    """A comparable description; tensors by identity and by value."""
    modules = list(model.named_modules())
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "training": {name: m.training for name, m in modules},
        "hooks": {name: {h: dict(getattr(m, h)) for h in HOOKS} for name, m in modules},
        "compiled": {name: m._compiled_call_impl for name, m in modules},
        "attributes": {
            name: sorted(k for k in vars(m) if not k.startswith("_")) for name, m in modules
        },
        "requires_grad": {n: p.requires_grad for n, p in model.named_parameters()},
        "identity": {n: id(t) for n, t in tensors.items()},
        "values": {n: t.detach().clone() for n, t in tensors.items()},
        "grad": {n: p.grad for n, p in model.named_parameters()},
        "grad values": {
            n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()
        },
        "random": torch.get_rng_state(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
    }


def same(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a is b or a == b


def differences(before, after):
    """What changed, in words."""
    found = []
    for kind, entry in before.items():
        if isinstance(entry, dict):
            names = entry.keys() | after[kind].keys()
            found += [
                f"{kind} of {n or 'the model'}"
                for n in names
                if n not in entry or n not in after[kind] or not same(entry[n], after[kind][n])
            ]
        elif not same(entry, after[kind]):
            found.append(kind)
    return sorted(found)
