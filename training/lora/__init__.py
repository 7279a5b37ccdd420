"""What is trained and how: examples, the model with its LoRA, the loss, the optimizer."""
