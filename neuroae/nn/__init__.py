"""The layers and models that users compose, and the gradients through them."""
