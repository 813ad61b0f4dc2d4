"""Run by a launcher, in each of two processes: what each keeps of a model, as `shard` leaves it.

Arguments: a folder to write to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from run_helpers import tiny_config

from swin_umamba.loop.sharding import gathered, load_shares, shard, share_state
from swin_umamba.loop.world import World
from swin_umamba.train.network import build_model, build_optimizer


def _main(folder: Path) -> None:
    world = World("cpu")
    model = build_model(tiny_config(), pretrained=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shard(model, world.device)
    optimizer = build_optimizer(model, tiny_config(), world.device)
    sum(part.square().mean() for part in model(torch.ones(1, 1, 16, 16))).backward()
    optimizer.step()
    state = optimizer.state_dict()
    whole = gathered(state)
    fresh = build_optimizer(model, tiny_config(), world.device)
    fresh.load_state_dict(whole)
    share_state(fresh)
    load_shares(model, before)
    after = gathered(dict(model.state_dict()))
    found = {
        "weights": sum(p.to_local().numel() for p in model.parameters()),
        "moments": sum(s["exp_avg"].to_local().numel() for s in fresh.state.values()),
        "all": sum(tensor.numel() for tensor in before.values()),
        "weights kept": all(torch.equal(after[name], before[name]) for name in before),
        "moments kept": all(
            torch.equal(s["exp_avg"].to_local(), t["exp_avg"].to_local())
            for s, t in zip(fresh.state.values(), optimizer.state.values(), strict=True)
        ),
    }
    (folder / f"{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
