"""An example product, and the demo that takes it from a repository to two hosts."""
