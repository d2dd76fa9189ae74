"""What a person looks at: one self-contained HTML report, comparison tables, pictures of the disk."""
