"""How similar two relations of a knowledge base are, by KL divergence between their fact distributions."""
