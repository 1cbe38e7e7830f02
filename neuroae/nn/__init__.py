"""The layers and models that people compose, and the gradients through them."""
