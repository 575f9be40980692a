"""Labels at a site: who labelled what, under which guideline, how well people agree, and what is taken as the truth."""
