"""Exports an adapter for other programs: as a merged Hugging Face model, or as a GGUF LoRA for llama.cpp."""
