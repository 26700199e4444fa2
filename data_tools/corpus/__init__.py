"""What is done to one tar, or one part of a table, of a corpus: without Ray and without a command line."""
