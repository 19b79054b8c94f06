"""What a CLIP model sees in the pictures of a dataset."""
