"""What is trained and how: examples, the model with its LoRA, its loss, optimizer and CPU kernels."""
