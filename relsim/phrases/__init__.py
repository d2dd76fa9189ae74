"""What the words of relation phrases and of arguments say: one key for the forms of a phrase, tokens, negation, voice."""
