"""What an auditor computes: is what was released compatible with the epsilon that was claimed?

Pure statistics and pure attacks on numbers that somebody else released. An audit can falsify a claim, never prove it.
"""
