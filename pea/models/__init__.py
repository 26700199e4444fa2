"""What is frozen and what is trained: VAE, text encoders, the UNet with its hooks, the adapter; loading them."""
