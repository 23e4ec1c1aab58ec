"""Train an adapter: model, batches, losses, the loop, its checkpoints, validation and tracking."""
