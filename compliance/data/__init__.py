"""What a site knows about its data: versions, where they came from, what they may be used for, and how they are
erased. Knows no data frame; `client/datasets` reads the tables.
"""
