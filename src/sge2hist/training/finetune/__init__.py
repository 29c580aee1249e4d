"""Fine-tuning and distillation of trained models."""
