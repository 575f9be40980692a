"""How rows are spread over sites: index arrays in, index arrays out."""
