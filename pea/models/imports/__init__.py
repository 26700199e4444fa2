"""Text encoders in the forms that they were published in, brought into transformers' layout. Nothing in them is run."""
