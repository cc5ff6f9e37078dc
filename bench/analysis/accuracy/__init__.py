"""What predictions say: accuracy, and which images two rows answer differently."""
