"""The examples and the signatures of the two original pages, as data, and what runs and reads them."""
