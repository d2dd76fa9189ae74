"""Plain implementations, written from published equations alone, that speed is compared with."""
