"""What scripts/pretrain.py is made of."""
