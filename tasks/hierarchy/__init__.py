"""Embedding of taxonomies: geometries, the shared-negative softmax loss, reconstruction, and the task around them."""
