"""GPT-2 of `transformers` in a loop by hand, as the documentation of Accelerate writes it."""

import torch
from accelerate import Accelerator
from random_tokens import Clock, RandomTokens, gpt2, settings
from torch.utils.data import DataLoader

asked = settings()
clock = Clock(asked)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=asked["accumulation"])
model = gpt2(asked)
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, weight_decay=0.1, fused=True)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, asked["steps"] + asked["warm_up"])
loader = DataLoader(RandomTokens(asked), batch_size=asked["micro_batch"], shuffle=True)
model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
model.train()
for batch in loader:
    with accelerator.accumulate(model):
        accelerator.backward(model(**batch).loss)
        if accelerator.sync_gradients:
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    if accelerator.sync_gradients:
        clock.step_ended()
    if len(clock.ends) == asked["steps"] + asked["warm_up"]:
        break
clock.report("accelerate", "transformers")
