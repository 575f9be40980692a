"""Has the world changed since the model was trained? Tests that know the noise of the counts they are given.

A *difference* (`difference`) is made from two released histograms, or from stratified sums over sites; tests (`smooth`,
`chi2`, `conditional`), effect sizes (`effect`) and the planner (`power`) work on differences. `cusum` follows error
counts from window to window, `multiplicity` keeps false alarms rare over features and windows, `classify` says what
kind of drift a window shows. Needs numpy and scipy, nothing else; a site uses the same functions with noise 0.

Arrays may have leading axes for independent replicates where a docstring says shape (..., B).
"""
