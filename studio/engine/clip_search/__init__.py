"""What a CLIP model sees in the images of a dataset."""
