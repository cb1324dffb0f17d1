"""Distillation: data in batches, teacher targets, losses, the one training loop, and what reads logits back."""
