"""Adapters for the world outside: as a merged Hugging Face model, or as a GGUF LoRA for llama.cpp."""
