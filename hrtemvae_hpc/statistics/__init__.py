"""How a latent varies over time, as functions of tensors."""
