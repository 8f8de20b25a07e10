"""What families of models share: layers, stacks of blocks, experts, rotary positions."""
