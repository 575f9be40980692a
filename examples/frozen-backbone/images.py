"""scikit-learn's digits in two halves that share no image: 0 to 4 play public data, 5 to 9 what clinics hold.

Data: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
doi 10.24432/C50P49, CC BY 4.0; 1797 images of 8 x 8 pixels ship with scikit-learn.
"""

import pandas as pd
from sklearn.datasets import load_digits

PUBLIC, PRIVATE = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
PERSON, LABEL = "person", "digit"
PIXELS = [f"pixel {row} {column}" for row in range(8) for column in range(8)]
# Of every pixel, by how the images were made: a count of dots in a field of 4 x 4.
BRIGHTEST = 16


def images(digits: tuple[int, ...]) -> pd.DataFrame:
    """The images of some digits, one row an image. Its number in the whole data set stands for a person."""
    bundle = load_digits()
    table = pd.DataFrame(bundle.data.astype(int), columns=PIXELS)
    table.insert(0, LABEL, bundle.target)
    table.insert(0, PERSON, range(len(table)))
    return table[table[LABEL].isin(digits)].reset_index(drop=True)
