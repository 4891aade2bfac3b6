"""Training: losses, augmentation, the loop and its checkpoints. All of it needs torch."""
