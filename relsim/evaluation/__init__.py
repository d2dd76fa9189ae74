"""What a similarity is measured against: suites with a known answer, and ratings by people."""
