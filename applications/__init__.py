"""What trained models are used for, without training."""
