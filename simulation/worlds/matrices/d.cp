# All four concepts at a time: three sites go through all, three to concept 1 and back, two to concept 3, two stay.
# rows: steps 0 to 11; columns: sites 1 to 10; entries: concepts
0 0 0 0 0 0 0 0 0 0
0 0 0 0 0 0 0 0 0 0
0 0 0 1 1 1 0 0 0 0
1 1 1 1 1 1 0 0 0 0
1 1 1 1 1 1 0 0 0 0
1 1 1 1 1 1 3 3 0 0
2 2 2 0 0 0 3 3 0 0
2 2 2 0 0 0 3 3 0 0
2 2 2 0 0 0 3 3 0 0
3 3 3 0 0 0 3 3 0 0
3 3 3 0 0 0 3 3 0 0
3 3 3 0 0 0 3 3 0 0
