"""What the tests share: programs, certificates, tokens, running servers."""
