"""Fine-tuning the consistency transformer with the NeRF: weights of frames, corrections of poses, and back."""
